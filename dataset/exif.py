"""What image files say of themselves: EXIF's place, direction and focal length, Google's GPano.

Only headers are read.
"""

import re
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from common.errors import UserError
from dataset.images import open_image

_GPANO = re.compile(rb"GPano:(\w+)(?:\s*=\s*[\"']([^\"']*)[\"']|>([^<]*)<)")
_ORIENTATION, _FOCAL_35MM, _WIDTH, _HEIGHT = 0x0112, 0xA405, 0xA002, 0xA003
_TURNED = (5, 6, 7, 8)  # orientations of a camera that was held upright: rows are columns


class Header(NamedTuple):
    """Of an image file. size: (width, height) as stored · exif, format: Pillow's · gpano: its entries, {name.

    Text}.
    """

    size: tuple
    exif: Image.Exif
    gpano: dict
    format: str

    @property
    def stands_upright(self):
        """Whether the image is stored as it is to be shown."""
        return self.exif.get(_ORIENTATION, 1) == 1

    @property
    def upright(self):
        """(width, height) once the orientation tag is obeyed."""
        return self.size[::-1] if self.exif.get(_ORIENTATION) in _TURNED else self.size

    @property
    def place(self):
        """(latitude, longitude) in degrees, or None."""
        gps = self.exif.get_ifd(ExifTags.IFD.GPSInfo)
        try:
            angles = [sum(float(part) / 60**k for k, part in enumerate(gps[tag])) for tag in (2, 4)]
            return tuple(
                -angle if gps.get(tag) in ("S", "W") else angle
                for angle, tag in zip(angles, (1, 3), strict=True)
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    @property
    def direction(self):
        """The true bearing of the image's centre in degrees, or None.

        Magnetic ones would be off by unknown degrees.
        """
        gps = self.exif.get_ifd(ExifTags.IFD.GPSInfo)
        try:
            return float(gps[17]) if gps.get(16, "T") == "T" else None
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    @property
    def focal_35mm(self):
        """The focal length that would show as much on 35 mm film, in millimetres, or None."""
        try:
            return float(self.exif.get_ifd(ExifTags.IFD.Exif)[_FOCAL_35MM]) or None
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    @property
    def taken_size(self):
        """(width, height) of the image as the camera took it, or None.

        Another shape than the file's means that it was cut.
        """
        about = self.exif.get_ifd(ExifTags.IFD.Exif)
        try:
            size = int(about[_WIDTH]), int(about[_HEIGHT])
        except (KeyError, TypeError, ValueError):
            return None
        return size if min(size) > 0 else None


def read_header(file):
    """The `Header` of an image file. Raises UserError for no image, and FileNotFoundError."""
    try:
        with open_image(file) as image:
            gpano = {key.decode(): (a or b).decode().strip() for key, a, b in _GPANO.findall(_xmp(image))}
            return Header(image.size, image.getexif(), gpano, image.format)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{Path(file)}: cannot be read as an image ({str(error).splitlines()[0]})") from None


def _xmp(image):
    data = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return data.encode() if isinstance(data, str) else data
