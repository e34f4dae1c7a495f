"""Images -> uint8 arrays at a network's sizes. Sources are those of `dataset.decoding`."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from common.camera import WHOLE_DEG
from common.errors import UserError
from common.geometry import SATELLITE_PX
from dataset.decoding import COLOUR, GREY, MASK, decode, is_turned, name_of, read_bytes, shown_size

_FULL_TURN = 0.01  # by which a panorama's shape may differ from that of a full turn


def read_panorama(source, height, width, vertical=WHOLE_DEG):
    """A panorama, from a file or given as (h, w, 3) uint8, as (height, width, 3) RGB.

    It shows degrees `vertical` above and below the horizon, and a full turn. Raises UserError for another
    shape.
    """
    data = None if isinstance(source, np.ndarray) else read_bytes(source)
    shown_width, shown_height = shown_size(source, data)
    refuse(source, panorama_size_fault(shown_width, shown_height, vertical))
    factor = min(shown_height // height, shown_width // width)
    image = source if data is None else decode(source, data, factor=factor)
    return resize_image(image, height, width)


def read_satellite(source, size, any_size=False):
    """A satellite image, from a file or given as (h, w, 3) uint8, as (*size, 3) RGB; size: (height, width).

    It has VIGOR's size unless `any_size` allows others.
    """
    image = _pixels(source)
    refuse(source, None if any_size else satellite_size_fault(*image.shape[1::-1]))
    return resize_image(image, *size)


def read_part(source, crop, size=None):
    """A square part of an image, from a file or given as (h, w, 3) uint8, as (*size, 3) RGB.

    crop: (row, col, side) in whole pixels of the image. Without a size it keeps its own. Raises UserError.
    """
    image = _pixels(source)
    row, col, side = (int(value) for value in crop)
    height, width = image.shape[:2]
    if min(row, col) < 0 or row + side > height or col + side > width:
        fault = f"{width} x {height} px, but {side} px from row {row}, column {col} on belong there"
        raise UserError(f"{name_of(source)}: {fault}")
    part = image[row : row + side, col : col + side]
    return np.ascontiguousarray(part) if size is None else resize_image(part, *size)


def read_photograph(source, size=None):
    """A photograph, from a file or given as (h, w, 3) uint8, as (*size, 3) RGB.

    A file's orientation tag is applied. Without a size (height, width) it keeps its own.
    """
    image = _pixels(source)
    return image if size is None else resize_image(image, *size)


def read_whole(source, most):
    """An image, from a file or given as (h, w, 3) uint8, as the background of a picture, (H, W, 3) RGB.

    It keeps its own size unless its longer side has more than `most` pixels. Raises UserError.
    """
    image = _pixels(source)
    scale = min(1.0, most / max(image.shape[:2]))
    return resize_image(image, *(max(1, round(side * scale)) for side in image.shape[:2]))


def read_mask(source, size, any_size=False):
    """A semantic mask, from a file or given as (h, w) or (h, w, 3): foreground per pixel, 0 to 255.

    Sizes are those of `read_satellite`.
    """
    way_out = "python -m dataset.masks makes masks; use_mask False does without"
    image = _pixels(source, MASK, way_out)
    refuse(source, None if any_size else satellite_size_fault(*image.shape[1::-1]))
    foreground = image.reshape(*image.shape[:2], -1)[..., :3].any(-1)  # without an alpha channel
    return resize_image(foreground.astype(np.uint8) * 255, *size)


@dataclass
class OriginalImages:
    """The images of a data set at a network's sizes."""

    root: Path
    satellite_size: int
    panorama_size: tuple  # (height, width) of street images
    vertical: tuple = WHOLE_DEG  # degrees above and below the horizon that panoramas show

    def read(self, image):
        """An `ImageFile`: (H, W, 3) RGB of a street image, (S, S, 3) of a satellite image, (S, S) of a mask.

        A mask has the share of foreground in each pixel, 0 to 255.
        """
        path, size = self.root / image.path, (self.satellite_size,) * 2
        if image.kind == "mask":
            return read_mask(path, size)
        if image.kind == "satellite":
            return read_satellite(path, size) if image.crop is None else read_part(path, image.crop, size)
        if image.kind == "photo":
            return read_photograph(path, self.panorama_size)
        return read_panorama(path, *self.panorama_size, self.vertical)


def need_masks(root, mask):
    """Raises UserError if the folder of a mask, an `ImageFile`, is missing: no masks have been made yet."""
    path = root / mask.path
    if not path.parent.is_dir():
        makes = f"python -m dataset.masks --dataset_root {root} --osm <extracts> makes masks"
        raise UserError(f"{path}: no such file; {makes}, --use_mask False does without")


def read_copy(path, height, width, grey=False):
    """A copy that `dataset.cache` made, as it is, (height, width, 3) RGB or (height, width)."""
    fault = "it could not be read when the cache was made, or was removed since"
    data = read_bytes(path, f"{fault}; run python -m dataset.cache again")
    image = decode(path, data, GREY if grey else COLOUR)
    if image.shape[:2] != (height, width):
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise UserError(f"{path}: {size} px where the cache has {width} x {height}")
    return image


def _pixels(source, mode=COLOUR, *way_out):
    return source if isinstance(source, np.ndarray) else decode(source, read_bytes(source, *way_out), mode)


def panorama_span(width, height, vertical=WHOLE_DEG):
    """Degrees from edge to edge of a panorama with square pixels; `vertical`: above and below the horizon.

    A span within one per cent of a full turn counts as 360.
    """
    span = width / height * sum(vertical)
    return 360.0 if abs(span / 360 - 1) <= _FULL_TURN else span


def panorama_size_fault(width, height, vertical=WHOLE_DEG):
    """What is wrong with the size of a stored panorama, or None."""
    if panorama_span(width, height, vertical) == 360:
        return None
    if tuple(vertical) == WHOLE_DEG:
        whole = "a whole panorama is twice as wide as high; --vertical describes a cropped one"
        return f"{width} x {height} px, but {whole}"
    top, bottom = vertical
    return f"{width} x {height} px do not show a full turn with --vertical {top:g} {bottom:g}"


def satellite_size_fault(width, height):
    """What is wrong with the size of one of VIGOR's satellite images or masks, or None."""
    right = width == height == SATELLITE_PX
    return None if right else f"{width} x {height} px where VIGOR has {SATELLITE_PX} x {SATELLITE_PX}"


def refuse(source, fault):
    """Raises UserError with an image's fault, unless that is None."""
    if fault:
        tag = "; its orientation tag (EXIF) turns it on its side" if is_turned(source) else ""
        raise UserError(f"{name_of(source)}: {fault}{tag}")


def resize_image(image, height, width):
    """An image resized to a height and a width: averaged where it shrinks, bilinear where it grows."""
    if image.shape[:2] == (height, width):
        return image
    rows, cols = image.shape[:2]
    if height > rows or width > cols:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if rows < 2 * height and cols < 2 * width:
        # OpenCV averages fast by whole factors only; enlarging first loses nothing.
        image = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
