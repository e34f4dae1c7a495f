"""Panoramas of any heading and size -> VIGOR's: north in the centre column, 2048 x 1024."""

import cv2
import numpy as np

from common.files import write_bytes
from dataset.images import encode, read_panorama, read_satellite, stored_size

HEIGHT, WIDTH = 1024, 2048
_QUALITY = 95
_STILL_PX = 0.02  # a turn that nobody sees, and that interpolation would only blur


def write_panorama(panorama, path):
    """Write a `Panorama` of the table to a file of VIGOR's kind, whole or not at all. Raises UserError, and OSError where it
    cannot be written."""
    image = _whole(panorama)
    write_bytes(path, encode(turn_to_north(image, panorama.heading_deg), ".jpg", cv2.IMWRITE_JPEG_QUALITY, _QUALITY))


def turn_to_north(image, heading_deg):
    """(1024, 2048, 3) with north in the centre column, of a whole panorama (H, 2H, 3) whose centre looks along `heading_deg`."""
    width = image.shape[1]
    turn = heading_deg / 360 * width  # what is seen along the heading moves from the centre to the right
    whole = round(turn)
    image = read_panorama(np.roll(image, whole, axis=1), HEIGHT, WIDTH)
    rest = (turn - whole) * WIDTH / width
    if abs(rest) < _STILL_PX:
        return image
    padded = np.concatenate([image[:, -4:], image, image[:, :4]], 1)
    moved = cv2.warpAffine(padded, np.float64([[1, 0, rest], [0, 1, 0]]), padded.shape[1::-1], flags=cv2.INTER_CUBIC)
    return moved[:, 4:-4]


def _whole(panorama):
    """(H, 2H, 3) RGB of a panorama, black where its file has nothing."""
    width, height = stored_size(panorama.file)
    image = read_satellite(panorama.file, (height, width), any_size=True)
    if panorama.crop is None:
        return image
    sphere = np.zeros((panorama.crop.height, panorama.crop.width, 3), np.uint8)
    sphere[panorama.crop.top : panorama.crop.top + height, panorama.crop.left : panorama.crop.left + width] = image
    return sphere
