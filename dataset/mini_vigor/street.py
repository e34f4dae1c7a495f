"""One drawn street, for users without images."""

from pathlib import Path
from typing import NamedTuple

from dataset.lists import LABEL_FOLDERS, LISTS, coordinates
from dataset.mini_vigor.writer import CITIES, make


class Street(NamedTuple):
    """A drawn street; places are (latitude, longitude)."""

    panorama: Path  # with north in its centre column
    satellite: Path
    centre: tuple  # of the satellite image
    truth: tuple  # where the panorama was taken


def draw_street(root, seed, styles="varied", panorama_width=1024):
    """Draw a `Street` into a new folder. Each seed gives a different world. Raises UserError."""
    root, city, (lists, suffix) = Path(root), CITIES[seed % len(CITIES)], LABEL_FOLDERS["corrected"]
    size = {"panoramas": 2, "panorama_width": panorama_width}
    make(root, cities=(city,), workers=1, progress=False, seed=seed, styles=styles, **size)
    panorama, satellite = (root / lists / city / f"{LISTS[-1]}{suffix}.txt").read_text("utf-8").split()[:2]
    centre, truth = (
        tuple(coordinates([name], kind)[0].tolist())
        for name, kind in ((satellite, "satellite"), (panorama, "panorama"))
    )
    folder = root / city
    return Street(folder / "panorama" / panorama, folder / "satellite" / satellite, centre, truth)
