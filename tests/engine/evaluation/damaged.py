"""Damages a copy of a folder in VIGOR's layout, as labels and images of others are damaged.

python tests/engine/evaluation/damaged.py FROM TO CITY        # moves 5 labels, turns 3 headings, scales
"""

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np

from common import geometry
from dataset.index import load_index
from engine.evaluation.suspects import districts

MOVED_M, TURNED_DEG, SCALED = 15.0, 40.0, 1.25


def damage(root, city, moved, turned, district=None, seed=0):
    """Damage a folder: so many labels moved and headings turned, none of them of the `district` (a name)
    whose satellite images are enlarged about their centres. Returns the names of the damaged panoramas."""
    index = load_index(root, "crossarea", "test", cities=[city])
    of = districts(index)[index.satellite[:, 0]]
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(of != district))[: moved + turned]
    names = [index.panorama[row].decode() for row in rows]
    lists = sorted((root / "splits__corrected" / city).glob("*balanced*"))
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        if number < moved:
            pixels = MOVED_M / float(index.metres_per_pixel(index.satellite[row, 0]))
            _move(lists, name, pixels * np.array([np.cos(number), np.sin(number)]))
        else:
            path = root / index.panorama_image(row).path
            image = cv2.imread(str(path))
            cv2.imwrite(str(path), np.roll(image, -round(TURNED_DEG / 360 * image.shape[1]), 1))
    for satellite in np.unique(index.satellite[of == district]):
        if districts(index)[satellite] == district:
            path = root / index.satellite_image(satellite).path
            image, cut = cv2.imread(str(path)), round(geometry.SATELLITE_PX * (1 - 1 / SCALED) / 2)
            cv2.imwrite(str(path), cv2.resize(image[cut:-cut, cut:-cut], (geometry.SATELLITE_PX,) * 2))
    return names


def _move(lists, name, by):
    """Move a panorama's labels by (rows, columns) in all lists; a label's columns count to the left."""
    for path in lists:
        lines = [line.split() for line in path.read_text().splitlines()]
        for words in lines:
            if words[0] == name:
                for k in (2, 5, 8, 11):
                    words[k : k + 2] = f"{float(words[k]) + by[0]:.4f}", f"{float(words[k + 1]) - by[1]:.4f}"
        path.write_text("".join(f"{' '.join(words)}\n" for words in lines))


if __name__ == "__main__":
    source, target, city = sys.argv[1:]
    shutil.copytree(source, target)
    print(*damage(Path(target), city, moved=5, turned=3, district=f"{city} 4"), sep="\n")
