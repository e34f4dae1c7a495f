"""Headers of image files: EXIF's place, direction and focal length, and Google's GPano."""

import math
import re
from typing import NamedTuple

from PIL import ExifTags, Image

from common.errors import UserError
from dataset.decoding import name_of, open_image, orientation, upright_size

_GPANO = re.compile(rb"GPano:(\w+)(?:\s*=\s*[\"']([^\"']*)[\"']|>([^<]*)<)")
_FOCAL_35MM, _WIDTH, _HEIGHT = 0xA405, 0xA002, 0xA003


class Header(NamedTuple):
    """The header of an image file."""

    size: tuple  # (width, height) of the upright image
    stands_upright: bool  # whether the image is stored upright
    exif: Image.Exif  # Pillow's
    gpano: dict  # its entries, {name: text}
    format: str  # Pillow's

    @property
    def place(self):
        """(latitude, longitude) in degrees, or None."""
        gps = self.exif.get_ifd(ExifTags.IFD.GPSInfo)
        try:
            angles = [sum(float(part) / 60**k for k, part in enumerate(gps[tag])) for tag in (2, 4)]
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        signs = [-1 if gps.get(tag) in ("S", "W") else 1 for tag in (1, 3)]
        place = angles[0] * signs[0], angles[1] * signs[1]
        return place if all(map(math.isfinite, place)) else None

    @property
    def direction(self):
        """The true bearing of the image's centre in degrees; None where it is magnetic or missing."""
        gps = self.exif.get_ifd(ExifTags.IFD.GPSInfo)
        try:
            return float(gps[17]) if gps.get(16, "T") == "T" else None
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    @property
    def focal_35mm(self):
        """The 35 mm equivalent focal length in millimetres, or None."""
        try:
            return float(self.exif.get_ifd(ExifTags.IFD.Exif)[_FOCAL_35MM]) or None
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    @property
    def taken_size(self):
        """(width, height) as the camera took the image, or None. A file of another shape was cropped."""
        about = self.exif.get_ifd(ExifTags.IFD.Exif)
        try:
            size = int(about[_WIDTH]), int(about[_HEIGHT])
        except (KeyError, TypeError, ValueError):
            return None
        return size if min(size) > 0 else None


def read_header(file):
    """The `Header` of an image file, given by its path or its bytes. Raises UserError."""
    try:
        with open_image(file) as image:
            gpano = {key.decode(): (a or b).decode().strip() for key, a, b in _GPANO.findall(_xmp(image))}
            upright = orientation(image) == 1
            return Header(upright_size(image), upright, image.getexif(), gpano, image.format)
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{name_of(file)}: its header is garbled ({reason})") from None


def _xmp(image):
    data = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return data.encode() if isinstance(data, str) else data
