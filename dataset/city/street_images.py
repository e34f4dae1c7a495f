"""Street images of a city: panoramas turned to north, copies of photographs, and their cameras."""

import argparse

import cv2
import numpy as np

from common.camera import Pinhole, pinhole
from common.errors import UserError
from common.files import write_bytes
from common.settings import Number
from dataset.decoding import encode
from dataset.images import panorama_size_fault, read_panorama, read_photograph
from dataset.photograph import hfov_of_file

HEIGHT, WIDTH = 1024, 2048  # of VIGOR's panoramas
CAMERA_COLUMNS = ("hfov", *Pinhole.NAMES[1:])  # of a table, whose heading is a panorama's too
_QUALITY = 95
_NO_TURN_PX = 0.02  # smaller turns are invisible, and interpolation would only blur


def write_panorama(panorama, path):
    """Write a `PanoramaRow` as VIGOR stores it. Raises UserError."""
    image = read_photograph(panorama.file)
    if panorama.crop:  # black where the file has nothing
        (height, width), crop = image.shape[:2], panorama.crop
        sphere = np.zeros((crop.height, crop.width, 3), np.uint8)
        sphere[crop.top : crop.top + height, crop.left : crop.left + width] = image
        image = sphere
    turned = turn_to_north(image, panorama.heading_deg)
    write_bytes(path, encode(turned, ".jpg", cv2.IMWRITE_JPEG_QUALITY, _QUALITY))


def turn_to_north(image, heading_deg):
    """(1024, 2048, 3) with north in the centre, from a panorama (H, 2H, 3) with its centre's heading."""
    width = image.shape[1]
    turn_px = heading_deg / 360 * width  # to the right
    whole = round(turn_px)
    image = read_panorama(np.roll(image, whole, axis=1), HEIGHT, WIDTH)
    rest = (turn_px - whole) * WIDTH / width
    if abs(rest) < _NO_TURN_PX:
        return image
    padded = np.concatenate([image[:, -4:], image, image[:, :4]], 1)
    shift = np.float64([[1, 0, rest], [0, 1, 0]])
    return cv2.warpAffine(padded, shift, padded.shape[1::-1], flags=cv2.INTER_CUBIC)[:, 4:-4]


def camera_of(line, header, heading_deg, file, where):
    """The `Pinhole` of a photograph, unbatched.

    line: a row of the table, with `CAMERA_COLUMNS` as text.
    header: of the image file.
    where: the line, for errors.

    Raises UserError for panoramas, invalid numbers, and an unknown field of view.
    """
    if header.gpano:
        raise UserError(f"{file}: its GPano tags say that it is a panorama; give its table as --panoramas")
    given = {name: getattr(line, name) for name in CAMERA_COLUMNS if getattr(line, name)}
    try:
        numbers = {name: Number()(text) for name, text in given.items()}
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{where}: {', '.join(given)}: {fault}") from None
    width, height = header.size
    if not {"hfov", "fx"} & numbers.keys():
        if panorama_size_fault(width, height) is None:
            remedy = "give its table as --panoramas or, if it is a photograph, its hfov there"
            raise UserError(f"{file}: {width} x {height} px, the shape of a panorama; {remedy}")
        numbers["hfov"] = hfov_of_file(header, width, height)
        if numbers["hfov"] is None:
            is_absent = header.focal_35mm is None
            fault = "EXIF has no focal length" if is_absent else "was cropped after EXIF was written"
            raise UserError(f"{file}: {fault}; give its hfov in degrees, or fx in pixels, in {where}")
    distortion = [numbers.pop(name, 0.0) for name in Pinhole.DISTORTION]
    try:
        return pinhole(width, height, heading=heading_deg, distortion=distortion, **numbers)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def write_photograph(photograph, path):
    """Write an upright copy of a photograph with the same pixels. Raises as `write_panorama` does."""
    unchanged = path.suffix == ".jpg"
    file = photograph.file
    write_bytes(path, file.read_bytes() if unchanged else encode(read_photograph(file), ".png"))
