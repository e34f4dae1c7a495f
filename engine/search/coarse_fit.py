"""Fits descriptors of query images and ground to a network that stays as it is, on its training panoramas.

A query's vector has to be nearer to that of its place than to those of other queries' places and of other
ground (InfoNCE), and, for networks of any heading, than the vectors of the query turned wrong. The camera
stands anywhere in its square; both views are turned and mirrored together.
"""

import hashlib
import io

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from common.errors import UserError
from common.files import replacing
from engine.run import made_folder
from engine.search.calibration import spread
from engine.search.coarse import Coarse, describe_queries, open_squares
from engine.search.parts import CHUNK
from engine.search.query import make_templates
from engine.search.searcher import truth_px
from model.coarse import SQUARE, CoarseHeads

FILE = "search/coarse.pt"  # beside the checkpoint
SHIPPED = "coarse_{}"  # of a checkpoint's name: what comes with the repository's networks
_PANORAMAS, _HELD_OUT = 2000, 200  # at most, to fit to and to measure with
_ELSEWHERE = 4000  # patches of other ground
_STEPS, _BATCH, _RATE = 800, 96, 2e-3
_JITTER = SQUARE // 2  # cells by which a camera lies off the middle of its square


def load_coarse(checkpoint, device):
    """The `Coarse` that is kept beside a checkpoint. Raises UserError where there is none."""
    path, file = made_folder(checkpoint.file) / FILE, checkpoint.file
    if not path.exists() and (shipped := file.with_name(SHIPPED.format(file.name))).exists():
        path = shipped
    try:
        kept = torch.load(path, map_location=device, weights_only=True)
        if kept["sha256"] != checkpoint.sha256:
            says = "was fitted to another network"
            raise UserError(f"{path}: {says}; search_VIGOR.py --fit_coarse fits descriptors to this one")
        heads = CoarseHeads(kept["channels"], kept["side"]).to(device)
        heads.load_state_dict(kept["heads"])
    except FileNotFoundError:
        says = "this network has no descriptors yet, which --coarse needs"
        raise UserError(f"{path}: {says}; search_VIGOR.py --fit_coarse fits them") from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); --fit_coarse makes it anew") from None
    return Coarse(heads.eval(), kept["ranks"].numpy(), _name(kept["heads"]))


def fit_coarse(searcher, checkpoint, dataset, held_out, seed=0):
    """Fit descriptors and keep them; returns what to print.

    searcher: over all cities of both lists, for known headings.
    dataset, held_out: of training and of validation.
    """
    numbers = spread(len(dataset), _PANORAMAS)
    examples = [
        _example(searcher, dataset, i) for i in tqdm(numbers, desc="encoding", unit="image", disable=None)
    ]
    templates = torch.stack([template for template, _, _ in examples])
    heads = CoarseHeads(*templates.shape[1:3]).to(searcher.device)
    wide = heads.seen + 2 * _JITTER
    places = torch.stack([_patch(city, cell, wide) for _, city, cell in examples])
    rng = np.random.default_rng(seed)
    others = torch.stack([_patch(*_anywhere(searcher, rng), heads.seen) for _ in range(_ELSEWHERE)])
    _train(heads, templates, places, others, rng, turns=4 if checkpoint.view.ori_noise else 1)
    state = {name: value.half() for name, value in heads.eval().state_dict().items()}
    heads.load_state_dict(state)
    coarse = Coarse(heads, np.zeros(0), _name(state))
    squares = {city: open_squares(city.index, coarse, city.name) for city in searcher.cities}
    noise = checkpoint.view.ori_noise
    ranks = [_rank(searcher, coarse, squares, held_out, i, noise) for i in spread(len(held_out), _HELD_OUT)]
    kept = {"heads": state, "channels": heads.channels, "side": heads.side, "sha256": checkpoint.sha256}
    path = made_folder(checkpoint.file) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        torch.save(kept | {"ranks": torch.tensor(sorted(ranks), dtype=torch.float64)}, beside)
    shares = ", ".join(
        f"{100 * np.mean(np.array(ranks) <= x):.1f} % in {100 * x:g} %" for x in (0.001, 0.01, 0.02)
    )
    total = sum(len(each.corners) for each in squares.values())
    return (
        f"{path}: {len(ranks)} held-out images have their place among the best squares of {total}: {shares}"
    )


def _name(state):
    content = io.BytesIO()
    np.savez(content, *[value.cpu().numpy() for value in state.values()])
    return hashlib.sha256(content.getvalue()).hexdigest()[:8]


@torch.inference_mode()
def _templates_of(searcher, dataset, i, noise=0.0):
    """(`Templates` of headings within `noise` degrees, their number of heights, the `SearchCity`, the true
    cell (row, col)) of a sample."""
    sample = dataset[i]
    city = searcher.city_of(dataset.index.city[dataset.pairs[i][0]])
    hypotheses = searcher.network.hypotheses(noise, searcher.view.camera_height)
    query = searcher.query_of(sample)
    templates = make_templates(searcher.network, *query, city.index.grid, hypotheses)
    cell = city.index.grid.to_cells(truth_px(sample, dataset.satellite_size))
    return templates, len(hypotheses.heights), city, np.floor(cell).astype(int)


def _example(searcher, dataset, i):
    templates, _, city, cell = _templates_of(searcher, dataset, i)
    return templates.kernel.mean(1).half().cpu(), city, cell


def _patch(city, cell, side):
    """Features (C, side, side) around a cell."""
    row, col = cell - side // 2
    return city.index.read(row, col, side, side)[0].half()


def _anywhere(searcher, rng):
    """A city, and a cell of it in a random part."""
    city = searcher.cities[rng.integers(len(searcher.cities))]
    part = rng.choice(list(city.index.parts))
    return city, part * CHUNK + rng.integers(0, CHUNK, 2)


def _train(heads, templates, places, others, rng, turns):
    """Fit heads. turns: 4 sets a query turned by 90, 180 and 270 degrees against it too; else 1."""
    device, batch = heads.log_scale.device, min(_BATCH, len(templates))
    optimizer = torch.optim.AdamW(heads.parameters(), _RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _STEPS)
    bar = tqdm(range(_STEPS), desc="fitting", unit="step", disable=None)
    for _ in bar:
        mine, apart = rng.choice(len(templates), batch, replace=False), rng.choice(len(others), batch)
        shifts = rng.integers(-_JITTER, _JITTER + 1, (batch, 2)) + _JITTER
        near = [
            places[i][:, r : r + heads.seen, c : c + heads.seen]
            for i, (r, c) in zip(mine, shifts, strict=True)
        ]
        query, ground = templates[mine].float(), torch.cat([torch.stack(near), others[apart]]).float()
        quarters, mirrored = int(rng.integers(4)), rng.random() < 0.5
        query, ground = (x.flip(-1) if mirrored else x for x in (query, ground))
        query, ground = (x.rot90(quarters, (-2, -1)).to(device) for x in (query, ground))
        turned = torch.cat([query.rot90(turn, (-2, -1)) for turn in range(turns)])  # the right ones first
        logits = heads.describe_query(turned) @ heads.describe_map(ground).flatten(1).T
        logits, right = logits * heads.log_scale.exp().clamp(max=50), torch.arange(batch, device=device)
        of_query = logits.unflatten(0, (turns, batch)).transpose(0, 1).flatten(1)
        loss = F.cross_entropy(of_query, right) + F.cross_entropy(logits[:, :batch].T, right) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def _rank(searcher, coarse, squares, dataset, i, noise):
    """The share of all squares that come before the one with the camera, headings known within `noise`."""
    templates, heights, city, cell = _templates_of(searcher, dataset, i, noise)
    query = describe_queries(coarse, templates, heights)
    found = [squares[city].best(query, len(squares[city].corners)) for city in squares]
    numbers = np.flatnonzero((squares[city].corners == cell // SQUARE * SQUARE).all(1))
    scores, order = found[list(squares).index(city)]
    if not len(numbers) or not (right := order == numbers[0]).any():
        return 1.0
    before = sum(int((other > scores[right][0]).sum()) for other, _ in found)
    return before / sum(len(each.corners) for each in squares.values())
