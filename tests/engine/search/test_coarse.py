"""Descriptors first: which cells a square holds, what FAISS finds, and what only squares give."""

import re
import shutil

import numpy as np
import pytest
import torch
from children import call, refusal
from test_query import Planted, draw_kernel

from dataset.mini_vigor import writer
from engine.search import coarse, coarse_fit
from engine.search.coarse import Coarse, CoarseSearch, Squares
from engine.search.query import Templates, scan
from model.checkpoint import PRETRAINED
from model.coarse import DIMENSIONS, SQUARE, CoarseHeads


@pytest.fixture(scope="module")
def heads():
    torch.manual_seed(0)
    return CoarseHeads(3, 21).eval()


def test_a_square_s_vector_depends_on_the_cells_around_it_alone(heads):
    """Square (i, j) begins `before` + SQUARE (i, j) cells from the corner, in the middle of what is seen."""
    assert heads.seen == 23 and heads.before + SQUARE + heads.before in (heads.seen, heads.seen - 1)
    features = torch.randn(1, 3, heads.seen + 2 * SQUARE, heads.seen + 3 * SQUARE)
    with torch.inference_mode():
        vectors = heads.describe_map(features)
        assert vectors.shape == (1, DIMENSIONS, 3, 4)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(1, 3, 4))
        part = features[..., SQUARE : SQUARE + heads.seen, 2 * SQUARE : 2 * SQUARE + heads.seen]
        torch.testing.assert_close(heads.describe_map(part)[..., 0, 0], vectors[..., 1, 2])
        templates = torch.randn(2, 3, 21, 21)
        torch.testing.assert_close(heads.describe_query(templates), heads.describe_query(7 * templates))


def test_only_chosen_squares_are_scored_and_as_everywhere():
    templates = Templates(draw_kernel(torch.zeros(1)), torch.zeros(1), torch.zeros(1))
    index = Planted(templates.kernel[:, 0], 131, 300, 512)
    squares = np.array([(128, 296), (128, 300), (4, 8), (400, 400), (256, 0)])
    whole = torch.full((512, 512), -torch.inf)
    for block in scan(index, templates):
        whole[block.row : block.row + 256, block.col : block.col + 256] = block.score
    parts = [list(scan(index, templates, squares=squares, part=(number, 2))) for number in range(2)]
    found = torch.full((512, 512), -torch.inf)
    for block in parts[0] + parts[1]:
        place = found[block.row :, block.col :][: block.score.shape[0], : block.score.shape[1]]
        place.copy_(torch.maximum(place, block.score))
    inside = torch.zeros(512, 512, dtype=torch.bool)
    for row, col in squares.tolist():
        inside[row : row + SQUARE, col : col + SQUARE] = True
    assert torch.equal(torch.isfinite(found), inside)
    torch.testing.assert_close(found[inside], whole[inside], rtol=0, atol=1e-4)


def bank(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    corners = np.stack(np.divmod(np.arange(count), 100), 1).astype(np.int32) * SQUARE
    return vectors, Squares(corners, coarse._gathered(np.array_split(vectors, 3)))


def test_the_best_squares_are_those_of_the_best_heading():
    vectors, squares = bank(2000)
    queries = vectors[[7, 70]] + 0.01
    scores, numbers = squares.best(queries, 10)
    expected = (vectors @ queries.T).max(1)
    assert {*numbers[:2]} == {7, 70} and len({*numbers}) == 10
    assert {*numbers} == {*np.argsort(-expected)[:10]}
    np.testing.assert_allclose(scores, expected[numbers], atol=2e-3)
    assert {*squares.best(queries, 3, np.array([1, 2, 70]))[1]} == {1, 2, 70}


@pytest.mark.slow
def test_many_squares_are_quantised(monkeypatch):
    monkeypatch.setattr(coarse, "FLAT", 5000)
    monkeypatch.setattr(coarse, "_SAMPLE", 6000)
    vectors, squares = bank(8000)
    _, numbers = squares.best(vectors[[4321]], 20)
    assert numbers[0] == 4321 and len({*numbers}) == 20


def test_the_recall_of_a_share_and_small_areas(heads):
    ranks = np.array([0.001, 0.002, 0.01, 0.5])
    found = Coarse(heads, ranks, "name")
    shares = [found.recall(share) for share in (0.0005, 0.005, 0.1, 1)]
    assert shares == pytest.approx([0.1, 0.5, 0.7, 1.0])
    _, squares = bank(50)
    templates = Templates(draw_kernel(torch.zeros(1)), torch.zeros(1), torch.zeros(1))
    search = CoarseSearch(found, 50, {"city": squares})
    assert search.choose([("city", templates, None)], 1) == ({}, 1.0)
    chosen, recall = search._replace(most=5).choose([("city", templates, None)], 1)
    assert chosen["city"].shape == (5, 2) and recall == pytest.approx(0.7)
    circle = 0.0, 0.0, 9.0
    assert search._replace(most=20).choose([("city", templates, circle)], 1) == ({}, 1.0)


@pytest.mark.slow
def test_descriptors_are_fitted_kept_and_used(tmp_path, monkeypatch, capsys):
    """From a command line: refused before the fit, measured after it."""
    small = {"seed": 5, "panoramas": 30, "panorama_width": 256, "progress": False, "workers": 1}
    root = writer.make(tmp_path / "city", cities=["Seattle"], **small)
    shutil.copy(PRETRAINED["pretrained"], tmp_path / "best.pt")
    line = f"--model_path {tmp_path} --dataset_root {root} --city Seattle --pool 3 --dpi 30"
    error = refusal("search_VIGOR", f"{line} --idx 0 --coarse 40", capsys)
    assert f"{tmp_path / 'search/coarse.pt'}: " in error and "--fit_coarse" in error
    for name, value in (("_STEPS", 40), ("_ELSEWHERE", 40), ("_BATCH", 4)):
        monkeypatch.setattr(coarse_fit, name, value)
    call("search_VIGOR", f"{line} --fit_coarse")
    assert "held-out images have their place" in capsys.readouterr().out
    call("search_VIGOR", f"{line} --evaluate --calibrate 0 --limit 3 --coarse 400")
    said = capsys.readouterr().out
    assert re.search(
        r"^coarse, 400 of \d+ squares: \d+\.\d % of what the whole search finds, in \d+ % ", said, re.M
    )
    assert len(list((tmp_path / "search/index/best").glob("*/coarse.*.npz"))) == 1
    kept = torch.load(tmp_path / "search/coarse.pt")
    torch.save(kept | {"sha256": "0"}, tmp_path / "search/coarse.pt")
    assert "fitted to another network" in refusal("search_VIGOR", f"{line} --idx 0 --coarse 40", capsys)
