"""Which squares of a region to look at: the nearest ones by descriptors, in FAISS, before any cell is scored.

The heads (`model.coarse`) are fitted once to a network that stays as it is (`engine.search.coarse_fit`), and
kept beside it. The descriptors of a city's squares are kept with its index. The fit also measures what share
of held-out query images have their place among the best squares; probabilities are multiplied by it.
"""

import io
import zipfile
from typing import NamedTuple

import faiss
import numpy as np
import torch
from torch.nn.functional import max_pool2d
from tqdm import tqdm

from common.errors import UserError
from common.files import resumable
from engine import distributed
from engine.search.parts import CHUNK
from model.coarse import DIMENSIONS, SQUARE, CoarseHeads

FLAT = 4_000_000  # squares up to which all are compared; 320 km², 0.5 GB
_PIECES = 32  # bytes of a square's vector beyond that
_SAMPLE = 200_000  # squares that quantisation is learned from
_LOOKED_UP = 32  # part of the lists that is searched: one of so many


class Coarse(NamedTuple):
    """Heads, and how well they do.

    ranks: of held-out query images, sorted: the share of all squares that came before the right one.
    """

    heads: CoarseHeads
    ranks: np.ndarray
    name: str  # a hash, by which descriptors are known

    def recall(self, share):
        """The share of query images whose place is among this share of the squares."""
        if share >= 1:
            return 1.0
        return float((np.searchsorted(self.ranks, share, side="right") + 0.5) / (len(self.ranks) + 1))


class Squares(NamedTuple):
    """The squares of a city where a camera can stand, N of them."""

    corners: np.ndarray  # (N, 2) int32, the first cell (row, col)
    vectors: faiss.Index  # products of their descriptors

    def best(self, queries, most, inside=None):
        """(scores, numbers) of up to `most` squares, best first, by the highest product with any of queries.

        queries: (K, DIMENSIONS). inside: numbers of the squares that may be taken, or None.
        """
        how = {"sel": faiss.IDSelectorBatch(inside)} if inside is not None else {}
        if isinstance(self.vectors, faiss.IndexIVF):
            nprobe = max(8, self.vectors.nlist // _LOOKED_UP)
            parameters = faiss.SearchParametersIVF(nprobe=nprobe, **how)
        else:
            parameters = faiss.SearchParameters(**how)
        most = min(most, len(self.corners) if inside is None else len(inside))
        if not most:
            return np.zeros(0, np.float32), np.zeros(0, int)
        scores, numbers = self.vectors.search(np.ascontiguousarray(queries), most, params=parameters)
        order = np.argsort(-scores, None, kind="stable")
        scores, numbers = scores.ravel()[order], numbers.ravel()[order]
        _, first = np.unique(numbers, return_index=True)
        first = np.sort(first[numbers[first] >= 0])[:most]
        return scores[first], numbers[first]


def describe_queries(coarse, templates, heights):
    """(K, DIMENSIONS) of `Templates` for K headings; those of several heights are averaged."""
    kernel = templates.kernel.unflatten(1, (heights, -1)).mean(1)  # (C, K, n, n)
    with torch.inference_mode():
        return coarse.heads.describe_query(kernel.transpose(0, 1)).cpu().numpy()


def open_squares(index, coarse, city):
    """The `Squares` of a `CityIndex`: those that are kept with it, or new ones. Raises UserError."""
    store = index.store
    name = f"coarse.{coarse.name}.{index.fingerprint}.npz"
    if name not in store.listing():
        parts = [(np.zeros((0, 2), np.int32), np.zeros((0, DIMENSIONS), np.float16))]
        corners, vectors = zip(*parts, *_describe(index, coarse, city), strict=True)
        content, made = io.BytesIO(), faiss.serialize_index(_gathered(vectors))
        np.savez(content, corners=np.concatenate(corners), vectors=made)
        with resumable(store):
            store.remove([old for old in store.listing() if old.startswith("coarse.")])
            store.write(name, content.getvalue())
    try:
        with np.load(io.BytesIO(store.read(name)), allow_pickle=False) as kept:
            return Squares(kept["corners"], faiss.deserialize_index(kept["vectors"]))
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{store}/{name}: cannot be read ({error}); remove it, and it is made anew") from None


def _describe(index, coarse, city):
    """(corners, vectors) of the squares of each part of an index."""
    heads, device = coarse.heads, next(coarse.heads.parameters()).device
    for part in tqdm(index.parts, desc=f"describing {city}", unit="part", disable=None):
        row, col = np.array(part) * CHUNK
        side = CHUNK - SQUARE + heads.seen
        features, standing = index.read(row - heads.before, col - heads.before, side, side)
        within = slice(heads.before, heads.before + CHUNK)
        standing = max_pool2d(standing[within, within].float()[None], SQUARE)[0] > 0
        if standing.any():
            with torch.inference_mode():
                vectors = heads.describe_map(features[None].to(device))[0].half().cpu()
            corners = standing.nonzero().numpy() * SQUARE + (row, col)
            yield corners.astype(np.int32), vectors[:, standing].T.contiguous().numpy()


def _gathered(parts):
    """A FAISS index of arrays of vectors (n, DIMENSIONS) float16: exact where there are few."""
    total = sum(map(len, parts))
    few = total <= FLAT
    kind = "SQfp16" if few else f"IVF{int(total**0.5)},PQ{_PIECES}"
    made = faiss.index_factory(DIMENSIONS, kind, faiss.METRIC_INNER_PRODUCT)
    if not few:
        made.do_polysemous_training = False  # takes minutes, for a filter that is not used
        rng, share = np.random.default_rng(0), _SAMPLE / total
        sample = [part[rng.random(len(part)) < share] for part in parts]
        made.train(np.concatenate(sample).astype(np.float32))
    for part in parts:
        made.add(part.astype(np.float32))
    return made


class CoarseSearch(NamedTuple):
    """What a search needs to look at `most` squares only; squares: {city: `Squares`}."""

    coarse: Coarse
    most: int
    squares: dict

    def choose(self, asked, heights):
        """({city: corners of the squares to look at}, expected recall); ({}, 1) where all are looked at.

        asked: [(city, `Templates`, circle (row, col, radius) in cells or None)].
        """
        found, total = [], 0
        for city, templates, circle in asked:
            squares, inside = self.squares[city], None
            if circle is not None:
                away = np.hypot(*(squares.corners + SQUARE / 2 - circle[:2]).T)
                inside = np.flatnonzero(away <= circle[2] + SQUARE)
            total += len(squares.corners if inside is None else inside)
            found.append(
                (city, *squares.best(describe_queries(self.coarse, templates, heights), self.most, inside))
            )
        if total <= self.most:
            return {}, 1.0
        least = np.sort(np.concatenate([scores for _, scores, _ in found]))[-self.most :][0]
        chosen = {
            city: self.squares[city].corners[numbers[scores >= least]] for city, scores, numbers in found
        }
        return chosen, self.coarse.recall(self.most / total)


def open_coarse(coarse, most, cities):
    """The `CoarseSearch` of some `SearchCity`s; squares that are not described yet are. Raises UserError."""
    with distributed.first():
        squares = {city: open_squares(city.index, coarse, city.name) for city in cities}
    return CoarseSearch(coarse, most, squares)
