"""Any two images of the user -> a sample like VIGOR's, without a position."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from common import geometry
from common.camera import WHOLE_DEG
from common.camera import panorama as panorama_camera
from common.errors import UserError
from common.geometry import wrap_degrees
from common.view import STEP_PX
from dataset.decoding import name_of, shown_size
from dataset.given import check_given
from dataset.images import panorama_span, read_mask, read_panorama, read_photograph, read_satellite, refuse
from dataset.photograph import own_photograph
from dataset.vigor import as_sample, roll_panorama

_VIGOR_GROUND_M = (64.0, 76.0)  # sides of VIGOR's images, by their latitude
_USUAL_GROUND_M = (55.0, 90.0)  # sides close enough to that
_ANY_GROUND_M = (20.0, 300.0)  # sides without a note, for networks that accept any extent
_LEAST_GROUND_M = 5.0  # the radius within which an answer counts as right
_SAME_SHAPE = 0.01  # by which a mask's shape may differ from its image's
_OF_QUERY = ("panorama", "photo", "heading", "vertical")
_LARGEST_PX = 2048  # of a side in one forward pass: a few GB


class Needs(NamedTuple):
    """A network's requirements on its images."""

    use_mask: bool  # masks are inputs
    metres: bool  # the satellite image's resolution is required, and the prior heading is used
    any_extent: bool  # satellite images of any size are accepted, at the ground resolution of training

    @classmethod
    def of(cls, network):
        """The needs of a network."""
        return cls(network.settings.use_mask, network.matching.has_templates, network.any_size)


def own_sample(view, needs, *, satellite=None, mask=None, centre=None, metres_per_pixel=None, **query):
    """A sample of two images at the sizes of a `View`, and notes on what was assumed.

    view, needs: of the network.
    satellite, mask: north up, of any size, and square unless the network accepts any extent. Without a mask,
    all is foreground. Arguments are those of `dataset.given.check_given`.
    centre: (latitude, longitude) of the satellite image.
    metres_per_pixel: of the satellite image as it is given; without it the image is assumed to span the
    ground of a VIGOR image at that latitude, 640 px at zoom 20.
    query: the query image, its heading and its camera, as `own_query` takes them.

    Returns (dict as `VigorDataset` gives it, list of lines). Unknown numbers are NaN. Raises UserError.
    """
    if satellite is None:
        raise UserError("no --satellite image was given to find the query image in")
    known = {"satellite": satellite, "mask": mask, "centre": centre, "metres_per_pixel": metres_per_pixel}
    satellite, mask, centre, metres_per_pixel = check_given(known).values()
    sample, notes = own_query(view, needs, **query)
    stored = shown_size(satellite)
    resolution = _resolution(satellite, stored, centre, metres_per_pixel, needs, notes)
    size, resolution = _size_for_network(satellite, stored, resolution, view.satellite_size, needs, notes)
    above = read_satellite(satellite, size, any_size=True)
    if not needs.use_mask and mask is not None:
        notes.append("--mask is not used: this network was trained without masks")
    if needs.use_mask and mask is None:
        says = "all of the satellite image counts as foreground, but this network learned with masks"
        notes.append(f"no --mask: {says}")
        mask = np.full(above.shape[:2], 255, np.uint8)
    elif mask is not None:
        _check_mask(mask, stored)
    mask = read_mask(mask, size, any_size=True) if needs.use_mask else None
    sample |= as_sample(satellite=above, mask=mask, position=(np.nan, np.nan), metres_per_pixel=resolution)
    return sample | {"index": torch.tensor(0)}, notes


def own_query(view, needs, *, panorama=None, photo=None, heading=None, vertical=None, **lens):
    """A user's query image, a panorama or a photograph, file or array: (entries of a sample, notes).

    heading: true bearing of its centre in degrees.
    vertical: degrees above and below the horizon that a cropped panorama shows.
    lens: of a photograph, as `dataset.photograph.own_photograph` takes it.

    The entries are `query`, `camera` with the prior heading, and `heading`, the true one, or NaN if the
    network estimates it. Raises UserError.
    """
    given = {"panorama": panorama, "photo": photo, "heading": heading, "vertical": vertical} | lens
    given = check_given(given)
    panorama, photo, heading, vertical = (given.pop(name) for name in _OF_QUERY)
    lens = given
    if (panorama is None) == (photo is None):
        raise UserError("a query image: give either a panorama or a photograph")
    if photo is None:
        if view.photographs:
            says = "a panorama, but this network was trained for photographs (--camera photo)"
            raise UserError(f"{name_of(panorama)}: {says}")
        if given := [f"--{name}" for name, value in lens.items() if value is not None]:
            raise UserError(f"{given[0]} describes photographs; it does not apply to a panorama")
        return _own_panorama(view, needs, panorama, heading, vertical or view.vertical)
    if vertical is not None:
        raise UserError("--vertical describes panoramas; it does not apply to a photograph")
    if not view.photographs:
        says = "a photograph, but this network was trained for panoramas"
        way_out = "leave --model_path out, or train one with --camera photo"
        raise UserError(f"{name_of(photo)}: {says}; {way_out}")
    if heading is None and view.ori_noise < 180:
        says = f"this network was trained for headings within {view.ori_noise:g} degrees; give --heading"
        raise UserError(f"{name_of(photo)}: {says}")
    query, camera, notes = own_photograph(photo, view, heading=heading, **lens)
    return as_sample(query, heading=np.nan if view.ori_noise else heading) | {"camera": camera}, notes


def _own_panorama(view, needs, panorama, heading, vertical):
    """`own_query` of a panorama with its prior heading. A network without cameras sees it rolled to north."""
    width, height = shown_size(panorama)
    span = panorama_span(width, height, vertical)
    if span > 360 or (span < 360 and vertical == WHOLE_DEG):
        says = f"{width} x {height} px, but a whole panorama is twice as wide as high"
        way_out = "--vertical TOP BOTTOM describes a cropped one, and --photo takes a photograph"
        if vertical != WHOLE_DEG:
            degrees = f"--vertical {vertical[0]:g} {vertical[1]:g}"
            says = f"{width} x {height} px would show {span:.0f} degrees with {degrees}"
            way_out = "check these degrees"
        refuse(panorama, f"{says}; {way_out}")
    size = replace(view, vertical=vertical).panorama_px
    notes = []
    if span == 360:
        query = read_panorama(panorama, *size, vertical)
    else:
        columns = max(STEP_PX, round(size[1] * span / 360 / STEP_PX) * STEP_PX)
        query = read_photograph(panorama, (size[0], columns))
    if heading is None and view.ori_noise == 0:
        says = "north is assumed in the panorama's centre column, as this network expects it"
        notes.append(f"no --heading: {says}")
    prior = heading or 0.0
    true = np.nan if heading is None and view.ori_noise else wrap_degrees(prior)
    if not needs.metres and abs(wrap_degrees(prior)) > view.ori_noise:
        if span < 360:
            says = f"{span:.0f} degrees wide; this network takes whole panoramas only"
            raise UserError(f"{name_of(panorama)}: {says}")
        notes.append(f"panorama rolled by {heading:g}°, so that its centre looks north")
        query, turned = roll_panorama(query, -prior)
        prior, true = 0.0, wrap_degrees(prior + turned)
    camera = panorama_camera(wrap_degrees(prior), span=span, top=vertical[0], bottom=vertical[1])
    return as_sample(query, heading=true) | {"camera": camera}, notes


def to_gps(row, col, centre, metres_per_pixel, size):
    """(latitude, longitude) of a position (row, col) in a satellite image of any size (height, width).

    centre: its (latitude, longitude), degrees.
    """
    scale = metres_per_pixel / geometry.metres_per_pixel(centre[0])  # pixels at zoom 20 per pixel
    down, right, half = (row - size[0] / 2) * scale, (col - size[1] / 2) * scale, geometry.SATELLITE_PX / 2
    return geometry.position_to_gps(half + down, half + right, *centre)


def _check_mask(mask, stored):
    """Raises UserError for a mask of another shape than its satellite image of a stored (width, height)."""
    width, height = shown_size(mask)
    if abs(width / height / (stored[0] / stored[1]) - 1) > _SAME_SHAPE:
        says = f"{width} x {height} px, but its satellite image has {stored[0]} x {stored[1]}"
        raise UserError(f"{name_of(mask)}: {says}; a mask is of the same ground")


def _resolution(satellite, stored, centre, metres_per_pixel, needs, notes):
    """Metres per pixel of the satellite image of a stored (width, height); NaN if unknown and not needed."""
    width, height = stored
    if width != height and not (needs.any_extent and metres_per_pixel):
        way_out = "give --metres_per_pixel, or cut" if needs.any_extent else "cut"
        says = f"{width} x {height} px, but a satellite image is square; {way_out} it about its centre"
        raise UserError(f"{name_of(satellite)}: {says}")
    if metres_per_pixel is not None:
        return metres_per_pixel
    if centre is not None:
        side_m = float(geometry.metres_per_pixel(centre[0])) * geometry.SATELLITE_PX
        says = f"the satellite image is assumed to span {side_m:.1f} m, as VIGOR's do at that latitude"
        notes.append(f"no --metres_per_pixel: {says}")
        return side_m / width
    if needs.metres:
        says = "this network matches on the ground and needs its resolution; give --metres_per_pixel, or"
        way_out = "--satellite_center LAT LON for an image with the extent of VIGOR's (640 px at zoom 20)"
        raise UserError(f"{name_of(satellite)}: {says} {way_out}")
    notes.append("neither --metres_per_pixel nor --satellite_center: nothing can be said in metres")
    return float("nan")


def _size_for_network(satellite, stored, resolution, satellite_size, needs, notes):
    """((height, width) at which the network sees the satellite image, metres per pixel there)."""
    width, height = stored
    shorter_m, longer_m = (resolution * side for side in sorted(stored))
    if shorter_m < _LEAST_GROUND_M:
        says = f"with --metres_per_pixel {resolution:g} it spans {shorter_m:.3g} m, less than the 5 m within"
        raise UserError(f"{name_of(satellite)}: {says} which an answer is right; check that number")
    least, most = _ANY_GROUND_M if needs.any_extent else _USUAL_GROUND_M
    if shorter_m < least or longer_m > most:
        learned = f"this network learned from images of {_VIGOR_GROUND_M[0]:g} to {_VIGOR_GROUND_M[1]:g} m"
        notes.append(f"the satellite image spans {shorter_m:.0f} m; {learned}, expect worse results")
    if not needs.any_extent:
        return (satellite_size, satellite_size), resolution * width / satellite_size
    # An image of VIGOR's extent keeps the size of training; others get the nearest resolution of training.
    finest, coarsest = (side_m / satellite_size for side_m in _VIGOR_GROUND_M)
    shown = float(np.clip(resolution * min(height, width) / satellite_size, finest, coarsest))
    size = tuple(max(32, round(side * resolution / shown)) for side in (height, width))
    if max(size) > _LARGEST_PX:
        extent_m, most_m = max(height, width) * resolution, _LARGEST_PX * shown
        says = f"{extent_m:.0f} m long, but this network takes {most_m:.0f} m at once; cut it"
        raise UserError(f"{name_of(satellite)}: {says}")
    longer = height >= width
    return size, (height if longer else width) * resolution / (size[0] if longer else size[1])
