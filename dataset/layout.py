"""Where the images of a data set lie under its root, and which part of its file an image is."""

from pathlib import PurePosixPath
from typing import NamedTuple

from common.geometry import SATELLITE_PX

STEP_PX = SATELLITE_PX // 2  # neighbouring satellite images of VIGOR overlap by half


class ImageFile(NamedTuple):
    """An image of a data set."""

    kind: str  # of the street 'panorama' or 'photo', its camera's kind; 'satellite' or 'mask'
    path: str  # relative to the root
    crop: tuple = None  # (row, col, side) in pixels: the square of the file that it is; None: all of it

    @property
    def name(self):
        """Its path with the numbers of its crop, so that each crop has a name of its own."""
        return numbered(self.path, self.crop)


class Folders(NamedTuple):
    """Folders of street images, satellite images and masks; {city} stands for a city's name."""

    street: str = "{city}/panorama"
    satellite: str = "{city}/satellite"
    mask: str = "{city}/point_prompt_mask"

    def image(self, kind, city, name, crop=None):
        """The `ImageFile` of a kind. name, crop: of the image itself, or of the satellite image of a mask."""
        if kind == "mask":
            name, crop = mask_name(numbered(name, crop)), None
        folder = {"satellite": self.satellite, "mask": self.mask}.get(kind, self.street).format(city=city)
        return ImageFile(kind, f"{folder}/{name}" if folder else name, crop)


VIGOR = Folders()
BY_PATH = Folders("", "", "masks")  # of data sets whose names are paths relative to the root


def numbered(path, crop):
    """A path with the numbers of a crop behind its stem; without a crop the path itself."""
    if crop is None:
        return path
    path = PurePosixPath(path)
    return str(path.with_stem("_".join(map(str, (path.stem, *crop)))))


def mask_name(satellite):
    """The name of the semantic mask of a satellite image."""
    return f"{satellite.removesuffix('.png')}_mask.tif"
