"""Checks of a user's two images and their numbers, shared by command lines, programs and the page.

Messages name an argument by its flag, such as `--heading`; programs and the page replace that by their own
names (`common.words.renamed`).
"""

import os
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.errors import UserError
from common.settings import BEARING, RESOLUTION, checked, read_centre, shown
from common.view import ANGLE, DISTORTION, HFOV, INTRINSICS, VERTICAL
from dataset.decoding import as_rgb, check_file, name_of, shown_size

IMAGES = ("panorama", "photo", "satellite", "mask")
FLAGS = {"centre": "satellite_center"}  # of arguments with another name
_LEAST_PX = 8  # of a side of an image
_READERS = {"heading": BEARING, "metres_per_pixel": RESOLUTION, "centre": read_centre, "vertical": VERTICAL}
_READERS |= {"hfov": HFOV, "pitch": ANGLE, "roll": ANGLE, "intrinsics": INTRINSICS, "distortion": DISTORTION}
NAMES = (*IMAGES, *_READERS)


def check_given(given):
    """The arguments of `Localizer.locate`, a dict, checked and converted.

    Images become paths, bytes of files or arrays (H, W, 3) uint8 RGB. Numbers may be given as texts, and
    tuples as any sequence. Raises UserError, in one line with the argument and its value, for invalid ones.
    """
    if not isinstance(given, dict):
        raise UserError(f"a pair: expected a dict of the arguments of locate, not {type(given).__name__}")
    for name in given:
        if name not in NAMES:
            close = get_close_matches(str(name), NAMES, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(NAMES)}"
            raise UserError(f"{name}: there is no such argument; {hint}")
    return {name: _read(name, f"--{FLAGS.get(name, name)}", value) for name, value in given.items()}


def _read(name, flag, value):
    return _image(flag, value) if name in IMAGES else checked(flag, _READERS[name], value)


def _image(flag, image):
    """A program's image as a source of `dataset.decoding`; None stays None."""
    if image is None:
        return None
    if isinstance(image, (str, os.PathLike)):
        if not str(image).strip():
            raise UserError(f"{flag} {str(image)!r}: empty, expected a file")
        source = Path(check_file(image))
    elif isinstance(image, Image.Image):
        source = as_rgb(image, flag)
    elif isinstance(image, torch.Tensor):
        source = _from_array(flag, _channels_last(flag, image.detach().cpu()))
    elif isinstance(image, np.ndarray):
        source = _from_array(flag, image)
    else:
        source = _read_open_file(flag, image) if hasattr(image, "read") else image
        if not isinstance(source, (bytes, bytearray, memoryview)):
            says = "expected a file, its bytes, an array, a tensor or an image of Pillow"
            raise UserError(f"{flag} {shown(image)}: {says}")
        source = bytes(source)
    width, height = shown_size(source)
    if min(width, height) < _LEAST_PX:
        says = f"{width} x {height} px; an image has {_LEAST_PX} px on a side or more"
        raise UserError(f"{name_of(source)}: {says}")
    return source


def _read_open_file(flag, file):
    """The bytes of an open file, from its beginning if it is seekable."""
    try:
        if file.seekable():
            file.seek(0)
        return file.read()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{flag}: this file cannot be read ({error}); open it in mode 'rb'") from None


def _channels_last(flag, tensor):
    """A tensor (C, H, W), torchvision's layout, or (H, W, C), as an array of uint8, channels last."""
    if tensor.dim() == 4 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.is_floating_point():
        if tensor.numel() and not 0 <= float(tensor.min()) <= float(tensor.max()) <= 1:
            raise UserError(f"{flag}: a tensor of {tensor.dtype}, expected values from 0 to 1, or uint8")
        tensor = (tensor.float() * 255).round().byte()
    if tensor.dim() == 3 and tensor.shape[0] in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    return tensor.numpy()


def _from_array(flag, image):
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whose alpha is dropped, as (H, W, 3) uint8."""
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,), (4,)):
        says = "expected uint8 (height, width, 3), RGB, or (height, width), grey"
        raise UserError(f"{flag}: an image given as {image.dtype} {image.shape}: {says}")
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, -1)
    return np.ascontiguousarray(image[..., :3])
