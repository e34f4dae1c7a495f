"""Any two images of the user's own -> a sample like VIGOR's, without a position."""

import argparse
from pathlib import Path

import numpy as np
import torch

from common import geometry
from common.errors import UserError
from common.flags import BEARING, POSITIVE, read_place
from dataset.images import name_of, read_mask, read_panorama, read_satellite, stored_size
from dataset.vigor import as_sample, roll_and_crop

_USUAL_GROUND_M = (55.0, 90.0)  # VIGOR's images are 64 to 76 m on a side


def own_sample(
    panorama,
    satellite,
    *,
    satellite_size,
    panorama_size,
    use_mask,
    FoV,
    ori_noise,
    needs_metres,
    mask=None,
    centre=None,
    heading=None,
    metres_per_pixel=None,
):
    """A sample of two images at a network's sizes, and notes on what had to be assumed.

    panorama: twice as wide as high; satellite, mask: square, north up, of any size. Each is a file or an array, (H, W, 3) uint8
    RGB, a mask also (H, W). Without a mask a network that wants one sees foreground everywhere.
    satellite_size, panorama_size, use_mask, FoV, ori_noise: the network's settings.
    needs_metres: whether the network cannot do without the satellite image's resolution.
    centre: (latitude, longitude) of the satellite image.
    heading: true bearing of the panorama's centre, degrees; where it lies outside the headings that the network was trained for,
    the panorama is rolled to north.
    metres_per_pixel: of the satellite image as it is given; without it the image is taken to span the ground of a VIGOR image at
    that latitude, 640 px at zoom 20.

    Returns (dict as `VigorDataset` gives it, list of lines). Unknown numbers are NaN there. Raises UserError.
    """
    panorama, satellite, mask = (_source(image) for image in (panorama, satellite, mask))
    centre = _checked("centre", lambda place: read_place(*place), centre)
    heading, metres_per_pixel = _checked("heading", BEARING, heading), _checked("metres_per_pixel", POSITIVE, metres_per_pixel)
    notes = []
    view = read_panorama(panorama, *panorama_size)
    above = read_satellite(satellite, satellite_size, any_side=True)
    ground_m = _side(satellite, centre, metres_per_pixel, needs_metres, notes)
    turn = 0.0
    if heading is None:
        if ori_noise == 0:
            notes.append("no --heading: north is taken to be in the panorama's centre column, as this network expects it")
    elif abs(geometry.wrap_degrees(heading)) > ori_noise:
        turn = -heading
        notes.append(f"panorama rolled by {heading:g}°, so that its centre looks north")
    view, turned = roll_and_crop(view, turn, FoV)
    known = float("nan") if heading is None and ori_noise else geometry.wrap_degrees((heading or 0.0) + turned)
    if not use_mask and mask is not None:
        notes.append("--mask is not used: this network was trained without masks")
    if use_mask and mask is None:
        notes.append("no --mask: the whole satellite image counts as foreground, but this network was trained with masks")
        mask = np.full(above.shape[:2], 255, np.uint8)
    sample = as_sample(
        view,
        above,
        read_mask(mask, satellite_size, any_side=True) if use_mask else None,
        position=(np.nan, np.nan),
        heading=known,
        metres_per_pixel=ground_m / satellite_size,
    ) | {"index": torch.tensor(0)}
    return sample, notes


def to_gps(row, col, centre, metres_per_pixel, size_px):
    """Latitude and longitude of a position (row, col) in a satellite image of any resolution, `size_px` on a side.

    centre: its (latitude, longitude), degrees.
    """
    scale = metres_per_pixel / geometry.metres_per_pixel(centre[0])  # pixels of the map at zoom 20 to one of the image
    half = geometry.SATELLITE_PX / 2
    return geometry.position_to_gps(half + (row - size_px / 2) * scale, half + (col - size_px / 2) * scale, *centre)


def _source(image):
    """An image as a path that exists, or as an array of a kind that is read; None stays."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise UserError(f"an image given as {image.dtype} {image.shape}: expected uint8 (height, width, 3), RGB")
        return image
    if image is not None and not Path(image).is_file():
        raise UserError(f"{image}: no such file")
    return image and Path(image)


def _checked(name, read, value):
    try:
        return None if value is None else read(value)
    except (argparse.ArgumentTypeError, TypeError) as fault:
        raise UserError(f"{name} {fault}") from None


def _side(satellite, centre, metres_per_pixel, needs_metres, notes):
    """Metres of ground that the satellite image spans; NaN where nothing tells and the network does not ask."""
    if metres_per_pixel is not None:
        side_m = metres_per_pixel * stored_size(satellite)[0]
    elif centre is not None:
        side_m = float(geometry.metres_per_pixel(centre[0])) * geometry.SATELLITE_PX
        notes.append(
            f"no --metres_per_pixel: the satellite image is taken to span {side_m:.1f} m, as VIGOR's do at that latitude"
        )
    elif needs_metres:
        raise UserError(
            f"{name_of(satellite)}: this network matches on the ground and needs its resolution; give --metres_per_pixel, "
            "or --satellite_center LAT LON for an image with the extent of VIGOR's (640 px at zoom 20)"
        )
    else:
        notes.append("neither --metres_per_pixel nor --satellite_center: nothing can be said in metres")
        return float("nan")
    if not _USUAL_GROUND_M[0] <= side_m <= _USUAL_GROUND_M[1]:
        notes.append(f"the satellite image spans {side_m:.0f} m; VIGOR's span 64 to 76 m, expect worse results")
    return side_m
