"""Any two images of the user's own -> a sample like VIGOR's, without a position."""

import argparse
from pathlib import Path

import numpy as np
import torch

from common import geometry
from common.errors import UserError
from common.flags import BEARING, POSITIVE, read_place
from dataset.images import name_of, panorama_size_fault, read_mask, read_panorama, read_satellite, stored_size
from dataset.photograph import own_photograph
from dataset.vigor import as_sample, roll_and_crop

_VIGOR_GROUND_M = (64.0, 76.0)  # that VIGOR's images span, by their latitude
_USUAL_GROUND_M = (55.0, 90.0)  # that differ little enough from it
_LARGEST_PX = 2048  # of a side that a network of any size takes at once: a few GB


def own_sample(
    panorama=None,
    satellite=None,
    *,
    satellite_size,
    panorama_size,
    use_mask,
    FoV,
    cameras,
    ori_noise,
    needs_metres,
    any_extent,
    photo=None,
    mask=None,
    centre=None,
    heading=None,
    metres_per_pixel=None,
    **lens,
):
    """A sample of two images at a network's sizes, and notes on what had to be assumed.

    panorama: twice as wide as high, or in its place photo, a photograph; satellite, mask: north up, of any size, and square where
    not `any_extent`. Each is a file or an array, (H, W, 3) uint8 RGB, a mask also (H, W). Without a mask a network that wants one
    sees foreground everywhere.
    satellite_size, panorama_size, use_mask, FoV, cameras, ori_noise: the network's settings.
    needs_metres: whether the network cannot do without the satellite image's resolution.
    any_extent: whether the network takes satellite images of any size at the ground resolution of its training; the image is then
    brought to that, else to `satellite_size` on a side.
    centre: (latitude, longitude) of the satellite image.
    heading: true bearing of the street image's centre, degrees; where it lies outside the headings that the network was trained
    for, a panorama is rolled to north.
    metres_per_pixel: of the satellite image as it is given; without it the image is taken to span the ground of a VIGOR image at
    that latitude, 640 px at zoom 20.
    lens: what is known of a photograph's camera, as `dataset.photograph.own_photograph` takes it.

    Returns (dict as `VigorDataset` gives it, list of lines). Unknown numbers are NaN there. Raises UserError.
    """
    panorama, photo, satellite, mask = (_source(image) for image in (panorama, photo, satellite, mask))
    if satellite is None:
        raise UserError("no satellite image was given to find the street image in")
    centre = _checked("centre", lambda place: read_place(*place), centre)
    heading, metres_per_pixel = _checked("heading", BEARING, heading), _checked("metres_per_pixel", POSITIVE, metres_per_pixel)
    how = {"panorama_size": panorama_size, "FoV": FoV, "cameras": cameras, "ori_noise": ori_noise}
    street, notes = own_street(panorama, photo, heading=heading, **how, **lens)
    stored = stored_size(satellite)
    resolution = _resolution(satellite, stored, centre, metres_per_pixel, needs_metres, any_extent, notes)
    size, resolution = _size_for_network(satellite, stored, resolution, satellite_size, any_extent, notes)
    above = read_satellite(satellite, size, any_size=True)
    if not use_mask and mask is not None:
        notes.append("--mask is not used: this network was trained without masks")
    if use_mask and mask is None:
        notes.append("no --mask: the whole satellite image counts as foreground, but this network was trained with masks")
        mask = np.full(above.shape[:2], 255, np.uint8)
    mask = read_mask(mask, size, any_size=True) if use_mask else None
    numbers = {"position": (np.nan, np.nan), "metres_per_pixel": resolution}
    return as_sample(satellite=above, mask=mask, **numbers) | street | {"index": torch.tensor(0)}, notes


def own_street(panorama=None, photo=None, *, panorama_size, FoV, cameras, ori_noise, heading=None, **lens):
    """A street image, a whole panorama or a photograph, file or array, as a network sees it: (parts of a sample, list of lines).

    The parts are `panorama`, the image, `heading`, the true bearing of its centre or NaN, and of a photograph `camera`, which
    holds what is told of its heading; that is the true one for a network alone that looks for no other (ori_noise 0). The lines
    say what had to be assumed; all else as of `own_sample`. Raises UserError.
    """
    panorama, photo = _source(panorama), _source(photo)
    if (panorama is None) == (photo is None):
        raise UserError("a street image: give either a panorama or a photograph")
    if photo is None:
        if cameras:
            raise UserError(f"{name_of(panorama)}: a panorama, but this network was trained for photographs (--camera photo)")
        if given := [f"--{name}" for name, value in lens.items() if value is not None]:
            raise UserError(f"{given[0]} is of photographs; a panorama shows all around")
        if fault := panorama_size_fault(*stored_size(panorama)):
            raise UserError(f"{name_of(panorama)}: {fault}; a photograph is given as --photo")
        notes = []
        view, known = _own_view(panorama, panorama_size, FoV, ori_noise, heading, notes)
        return as_sample(panorama=view, heading=known), notes
    if not cameras:
        way_out = "leave --model_path out, or train one with --camera photo"
        raise UserError(f"{name_of(photo)}: a photograph, but this network was trained for panoramas; {way_out}")
    if heading is None and ori_noise < 180:
        raise UserError(f"{name_of(photo)}: this network was trained for headings within {ori_noise:g} degrees; give --heading")
    view, camera, notes = own_photograph(photo, cameras, heading=heading, **lens)
    return as_sample(panorama=view, heading=np.nan if ori_noise else heading) | {"camera": camera}, notes


def _own_view(panorama, panorama_size, FoV, ori_noise, heading, notes):
    """(view (H, W, 3) of a whole panorama, true bearing of its centre or NaN); where its heading lies outside those that the
    network was trained for, it is rolled to north."""
    view, turn = read_panorama(panorama, *panorama_size), 0.0
    if heading is None:
        if ori_noise == 0:
            notes.append("no --heading: north is taken to be in the panorama's centre column, as this network expects it")
    elif abs(geometry.wrap_degrees(heading)) > ori_noise:
        turn = -heading
        notes.append(f"panorama rolled by {heading:g}°, so that its centre looks north")
    view, turned = roll_and_crop(view, turn, FoV)
    return view, float("nan") if heading is None and ori_noise else geometry.wrap_degrees((heading or 0.0) + turned)


def to_gps(row, col, centre, metres_per_pixel, size):
    """Latitude and longitude of a position (row, col) in a satellite image of any resolution and size (height, width).

    centre: its (latitude, longitude), degrees.
    """
    scale = metres_per_pixel / geometry.metres_per_pixel(centre[0])  # pixels of the map at zoom 20 to one of the image
    half = geometry.SATELLITE_PX / 2
    return geometry.position_to_gps(half + (row - size[0] / 2) * scale, half + (col - size[1] / 2) * scale, *centre)


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


def _resolution(satellite, stored, centre, metres_per_pixel, needs_metres, any_extent, notes):
    """Metres per pixel of the satellite image as it is given; NaN where nothing tells and the network does not ask.

    stored: its (width, height). Raises UserError for an image that is not square where it has to be.
    """
    width, height = stored
    if width != height and not (any_extent and metres_per_pixel):
        way_out = "give --metres_per_pixel, or cut" if any_extent else "cut"
        says = f"{width} x {height} px, but a satellite image is square; {way_out} it about the centre that it has"
        raise UserError(f"{name_of(satellite)}: {says}")
    if metres_per_pixel is not None:
        return metres_per_pixel
    if centre is not None:
        side_m = float(geometry.metres_per_pixel(centre[0])) * geometry.SATELLITE_PX
        notes.append(
            f"no --metres_per_pixel: the satellite image is taken to span {side_m:.1f} m, as VIGOR's do at that latitude"
        )
        return side_m / width
    if needs_metres:
        raise UserError(
            f"{name_of(satellite)}: this network matches on the ground and needs its resolution; give --metres_per_pixel, "
            "or --satellite_center LAT LON for an image with the extent of VIGOR's (640 px at zoom 20)"
        )
    notes.append("neither --metres_per_pixel nor --satellite_center: nothing can be said in metres")
    return float("nan")


def _size_for_network(satellite, stored, resolution, satellite_size, any_extent, notes):
    """((height, width) at which the network sees the satellite image, metres per pixel there)."""
    width, height = stored
    if not any_extent:
        side_m = resolution * width
        if not (np.isnan(side_m) or _USUAL_GROUND_M[0] <= side_m <= _USUAL_GROUND_M[1]):
            notes.append(f"the satellite image spans {side_m:.0f} m; VIGOR's span 64 to 76 m, expect worse results")
        return (satellite_size, satellite_size), side_m / satellite_size
    # An image of VIGOR's extent keeps the size of training; a larger or smaller one gets the nearest resolution of training.
    finest, coarsest = (side_m / satellite_size for side_m in _VIGOR_GROUND_M)
    shown = float(np.clip(resolution * min(height, width) / satellite_size, finest, coarsest))
    size = tuple(max(32, round(side * resolution / shown)) for side in (height, width))
    if max(size) > _LARGEST_PX:
        extent_m = max(height, width) * resolution
        most_m = _LARGEST_PX * shown
        raise UserError(f"{name_of(satellite)}: {extent_m:.0f} m long, but this network takes {most_m:.0f} m at once; cut it")
    longer = height >= width
    return size, (height if longer else width) * resolution / (size[0] if longer else size[1])
