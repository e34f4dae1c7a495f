"""One street in a world of its own, for users without images."""

from pathlib import Path

from dataset.lists import LABEL_FOLDERS, LISTS, coordinates
from dataset.mini_vigor.writer import CITIES, make


def draw_street(root, seed):
    """Draw a street into a new folder: (path of its panorama, path and centre of its satellite image).

    The panorama has north in its centre column; the centre is (latitude, longitude). Each seed gives another
    world. Raises UserError.
    """
    root, city, (lists, suffix) = Path(root), CITIES[seed % len(CITIES)], LABEL_FOLDERS["corrected"]
    size = {"panoramas": 2, "panorama_width": 1024}
    make(root, cities=(city,), workers=1, progress=False, seed=seed, styles="varied", **size)
    panorama, satellite = (root / lists / city / f"{LISTS[-1]}{suffix}.txt").read_text("utf-8").split()[:2]
    centre = tuple(coordinates([satellite], "satellite")[0].tolist())
    return root / city / "panorama" / panorama, root / city / "satellite" / satellite, centre
