"""One street in a world of its own, for whoever has no images at hand."""

from pathlib import Path

from dataset.lists import LABEL_FOLDERS, LISTS, coordinates
from dataset.mini_vigor.writer import CITIES, make


def draw_street(root, seed):
    """Draw a street into a new folder: (path of its panorama, path of its satellite image, centre of that).

    The panorama has north in its centre column; the centre is (latitude, longitude). Another seed gives another world. Raises
    UserError.
    """
    city, (lists, suffix) = CITIES[seed % len(CITIES)], LABEL_FOLDERS["corrected"]
    make(
        root,
        cities=(city,),
        workers=1,
        progress=False,
        panoramas=2,
        panorama_width=1024,
        seed=seed,
        styles="varied",
    )
    panorama, satellite = (Path(root) / lists / city / f"{LISTS[-1]}{suffix}.txt").read_text().split()[:2]
    paths = Path(root) / city / "panorama" / panorama, Path(root) / city / "satellite" / satellite
    return *paths, tuple(coordinates([satellite], "satellite")[0].tolist())
