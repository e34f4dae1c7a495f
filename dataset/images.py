"""Image files -> uint8 arrays at the size a network wants. Unreadable ones are errors that name the file."""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common.camera import WHOLE_DEG
from common.errors import UserError
from common.geometry import SATELLITE_PX

_BROKEN = "cannot be decoded; unpack or download it again"
# OpenCV gives BGR in these modes.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_FULL_TURN = 0.01  # by which a panorama's shape may differ from that of a full turn
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif")
_GREY_MODES = (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED)

cv2.setNumThreads(0)  # the loader's workers are the parallelism


def read_panorama(source, height, width, vertical=WHOLE_DEG):
    """A panorama, from a file or given as (h, w, 3) uint8, as (height, width, 3) RGB.

    It shows degrees `vertical` above and below the horizon, and a full turn. Raises UserError for another
    shape.
    """
    data = None if isinstance(source, np.ndarray) else _read(source)
    stored_width, stored_height = stored_size(source, data)
    _refuse(source, panorama_size_fault(stored_width, stored_height, vertical))
    if data is None:
        return resize_image(source, height, width)
    # JPEG decodes at a half, a quarter or an eighth for less; take the smallest that is still large enough.
    factor = min(stored_height // height, stored_width // width)
    mode = next((mode for least, mode in _REDUCED.items() if factor >= least), cv2.IMREAD_COLOR_RGB)
    return resize_image(_decode(source, data, mode), height, width)


def read_satellite(source, size, any_size=False):
    """A satellite image, from a file or given as (h, w, 3) uint8, as (*size, 3) RGB; size: (height, width).

    It has VIGOR's size unless `any_size` allows others.
    """
    image = _pixels(source, cv2.IMREAD_COLOR_RGB)
    _refuse(source, None if any_size else satellite_size_fault(*image.shape[1::-1]))
    return resize_image(image, *size)


def read_part(source, crop, size=None):
    """A square part of an image, from a file or given as (h, w, 3) uint8, as (*size, 3) RGB.

    crop: (row, col, side) in whole pixels of the image. Without a size it keeps its own. Raises UserError.
    """
    image = _pixels(source, cv2.IMREAD_COLOR_RGB)
    row, col, side = (int(value) for value in crop)
    height, width = image.shape[:2]
    if min(row, col) < 0 or row + side > height or col + side > width:
        fault = f"{width} x {height} px, but {side} px from row {row}, column {col} on belong there"
        raise UserError(f"{name_of(source)}: {fault}")
    part = image[row : row + side, col : col + side]
    return np.ascontiguousarray(part) if size is None else resize_image(part, *size)


def read_photograph(source, size=None):
    """A photograph, from a file or given as (h, w, 3) uint8, as (*size, 3) RGB.

    A file's orientation tag is obeyed. Without a size (height, width) it keeps its own.
    """
    image = _pixels(source, cv2.IMREAD_COLOR_RGB)
    return image if size is None else resize_image(image, *size)


def read_whole(source, most):
    """An image, from a file or given as (h, w, 3) uint8, for pictures to be drawn over, as (H, W, 3) RGB.

    It keeps its own size unless its longer side has more than `most` pixels. Raises UserError.
    """
    image = _pixels(source, cv2.IMREAD_COLOR_RGB)
    scale = min(1.0, most / max(image.shape[:2]))
    return resize_image(image, *(max(1, round(side * scale)) for side in image.shape[:2]))


def read_mask(source, size, any_size=False):
    """A semantic mask, from a file or given as (h, w) or (h, w, 3): foreground per pixel, 0 to 255.

    Sizes are those of `read_satellite`.
    """
    way_out = "python -m dataset.masks makes masks; use_mask False does without"
    image = _pixels(source, cv2.IMREAD_UNCHANGED, way_out)
    _refuse(source, None if any_size else satellite_size_fault(*image.shape[1::-1]))
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
    """Raises UserError where a root has no folder for a mask, an `ImageFile`: nobody has made masks yet."""
    path = root / mask.path
    if not path.parent.is_dir():
        makes = f"python -m dataset.masks --dataset_root {root} --osm <extracts> makes masks"
        raise UserError(f"{path}: no such file; {makes}, --use_mask False does without")


def read_copy(path, height, width, grey=False):
    """A copy that `dataset.cache` made, as it is, (height, width, 3) RGB or (height, width)."""
    fault = "it could not be read when the cache was made, or was removed since"
    data = _read(path, f"{fault}; run python -m dataset.cache again")
    image = _decode(path, data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB)
    if image.shape[:2] != (height, width):
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise UserError(f"{path}: {size} px where the cache has {width} x {height}")
    return image


def decode(name, data):
    """An image file's bytes as (H, W, 3) RGB, or (H, W, 4) with alpha. Raises UserError, with the name."""
    image = _decode(name, data, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and image.dtype == np.uint8:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return _decode(name, data, cv2.IMREAD_COLOR_RGB)


def encode(image, suffix, *options):
    """The bytes of an image file: (H, W, 3) RGB or (H, W) in the format of a suffix, by OpenCV's options."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise OSError(f"OpenCV cannot write {suffix} files")
    return data.tobytes()


def _pixels(source, mode, *way_out):
    return source if isinstance(source, np.ndarray) else _decode(source, _read(source, *way_out), mode)


def _read(path, way_out="python -m dataset.check lists everything that is missing"):
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {way_out}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not data:
        raise UserError(f"{path}: the file is empty; unpack or download it again")
    return data


def _decode(path, data, mode):
    """Decode an image in one of OpenCV's modes; reduced ones are turned into RGB too."""
    if is_heif(data) or not ends_well(BytesIO(data)):
        # OpenCV reads no HEIF, and fills up a truncated image without a word. Pillow refuses the truncated
        # one, and reads a whole one with an odd end.
        try:
            if mode in _GREY_MODES:
                return np.asarray(open_image(path, data).convert("L"))
            return np.asarray(ImageOps.exif_transpose(open_image(path, data)).convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path}: {_BROKEN} ({error})") from None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:  # a header that promises more pixels than OpenCV takes
        image = None
    if image is None:
        raise UserError(f"{path}: {_BROKEN}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if mode in _REDUCED.values() else image


def is_heif(data):
    """Whether the first bytes of a file are those of a HEIF image, as iPhones write them (.heic)."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def ends_well(file):
    """Whether an open JPEG or PNG is whole by its end; True for other formats. OSError below 12 bytes."""
    file.seek(0)
    first = file.read(4)
    file.seek(-12, os.SEEK_END)
    last = file.read()
    if first[:2] == b"\xff\xd8":
        return last[-2:] == b"\xff\xd9"
    if first[:4] == b"\x89PNG":
        return last[-8:-4] == b"IEND"
    return True


def is_whole(path):
    """Whether there is an image that ends as one; after a power cut there may be an empty file."""
    try:
        with open(path, "rb") as file:
            return ends_well(file)
    except OSError:
        return False


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


def stored_size(source, data=None):
    """(width, height) of an image: an array, or a file, whose bytes may have been read before."""
    if isinstance(source, np.ndarray):
        return source.shape[1::-1]
    return open_image(source, data or _read(source)).size


def check_pixels(path, most):
    """The path of an image. Raises UserError, without decoding, for one of more than `most` pixels."""
    width, height = stored_size(path)
    if width * height > most:
        raise UserError(f"{path}: {width} x {height} px; up to {most / 1e6:g} million pixels are taken")
    return path


def name_of(source):
    """The name of an image in messages: its path, or that it was given as an array."""
    return "the image given" if isinstance(source, np.ndarray) else source


def _refuse(source, fault):
    if fault:
        raise UserError(f"{name_of(source)}: {fault}")


def open_image(path, data=None):
    """An image file, or its bytes, opened by Pillow, which reads only the header. Raises UserError."""
    try:
        with open(path, "rb") if data is None else BytesIO(data) as file:
            if is_heif(file.read(12)):
                from pillow_heif import register_heif_opener  # a second of imports, for iPhones alone

                register_heif_opener()
        return Image.open(path if data is None else BytesIO(data))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise UserError(f"{path}: {_BROKEN}") from None


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
