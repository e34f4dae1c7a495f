"""Augmentation of whole batches on the training device, with parameters drawn for each sample.

Geometric changes move both views together: satellite image, mask and position are resampled once, and the
panorama's columns are rolled or mirrored accordingly, so that heading and metres per pixel stay true. There
is no shear, since panoramas cannot follow it. Draws come from torch's global generator on the CPU, which the
training loop seeds from (seed, epoch, step), so every device gets the same numbers.
"""

import math
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from common.camera import Panorama, cut_photographs
from common.geometry import view_columns, wrap_degrees
from common.view import STEP_PX
from dataset.appearance import blur, erase, jitter, restyle, retexture, uniform

MOVING = ("full", "strong", "textures")  # modes that move both views
MODES = ("none", "photometric", *MOVING)

ROTATION_DEG = 10.0
SCALE = (0.9, 1.1)
SHIFT = 0.1  # of the satellite image's side
CROPPED_ABOVE = (25.0, 60.0)  # degrees above the horizon that cropped panoramas of training show
CROPPED_BELOW = (22.0, 62.0)  # degrees below it
KEPT = (120.0, 360.0)  # degrees of a panorama that `hide_bearings` keeps
PHOTO_COLUMNS = 3600  # a turn is whole columns of a panorama; of a photograph it is tenths of a degree


class PairChange(NamedTuple):
    """How each pair of a batch changes, both views alike: mirrored east to west, then turned clockwise about
    the satellite image's centre, scaled by `zoom` and shifted by (rows, cols) of the satellite tensor.
    """

    mirror: torch.Tensor  # (B,) bool
    columns: torch.Tensor  # (B,) int: turns are whole columns of the panorama
    zoom: torch.Tensor  # (B,)
    shift: torch.Tensor  # (B, 2)
    scale_error: torch.Tensor = torch.ones(())  # factor of the zoom that is left out of metres per pixel


def augment(batch, mode, view, scale_noise=1.0, heading_error=0.0, cropped=0.0):
    """A training batch of `VigorDataset`, augmented by a mode and with its query images cut to the `View`.

    With `MOVING` modes, metres per pixel are off by up to a factor of `scale_noise`. Prior headings are off
    by up to `heading_error` degrees. In a share `cropped` of the batches, whole panoramas are cropped above
    and below. Changed images are floats within 0 and 255. Position, heading and, except for these errors,
    metres per pixel and camera fit the changed images. The given batch is not modified. Raises ValueError for
    an unknown mode.
    """
    return cut(recolour(move(batch, mode, view, scale_noise, heading_error, cropped), mode), view)


def move(batch, mode, view, scale_noise=1.0, heading_error=0.0, cropped=0.0):
    """The geometric part of `augment`: whole panoramas, or photographs that are cut out already."""
    if mode not in MODES:
        raise ValueError(f"augment {mode!r} is not one of {', '.join(MODES)}")
    if mode in MOVING:
        S, W = batch["satellite"].shape[-1], _columns(batch)
        drawn = draw_pair_change(len(batch["position"]), S, W, scale_noise)
        change = PairChange(*(part.to(batch["satellite"].device) for part in drawn))
        batch = change_pair(batch, keep_inside(change, batch["position"], S, W))
    if heading_error:
        error = uniform(len(batch["position"]), -heading_error, heading_error)
        batch = batch | {"camera": batch["camera"].turned(error.to(batch["position"].device))}
    if cropped and torch.rand(()) < cropped:
        batch = _crop(batch, *(float(uniform(1, *bounds)) for bounds in (CROPPED_ABOVE, CROPPED_BELOW)))
    if view.photographs and batch["camera"].kind == "panorama":
        batch = cut(_draw_photographs(batch, view), view)
    return batch


def recolour(batch, mode):
    """The part of `augment` that changes colours, light and sharpness of both views, each alone."""
    if mode == "strong":
        batch = _change_satellites(batch | {"query": restyle(batch["query"])}, restyle)
    if mode != "none":
        change = partial(_recolour, textures=mode == "textures")
        wraps = batch["camera"].wraps
        query = erase(blur(change(batch["query"], wraps=wraps), wraps))
        batch = _change_satellites(batch | {"query": query}, lambda image: erase(change(image)))
    return batch


def hide_bearings(batch, view):
    """A batch of whole panoramas, each cut to a random range of bearings, whose width is drawn from `KEPT`.

    Other batches and other views are returned unchanged. Prior headings are adjusted.
    """
    camera = batch["camera"]
    if view.FoV < 360 or camera.kind == "photo" or not camera.wraps:
        return batch
    query, B = batch["query"], len(batch["query"])
    W = query.shape[-1]
    columns = torch.randint(0, W, (B,)).to(query.device)
    source = (torch.arange(W, device=query.device) + columns[:, None]) % W
    turned = columns * (360 / W)
    batch = batch | {
        "query": _columns_of(query, source),
        "heading": wrap_degrees(batch["heading"] + turned),
        "camera": camera.turned(turned),
    }
    return cut(batch, replace(view, FoV=float(uniform(1, *KEPT))))


def _crop(batch, above, below):
    """A batch of panoramas that show about `above` and `below` degrees above and below the horizon.

    Their number of rows is a multiple of `STEP_PX`, as in other query images.
    """
    camera, rows = batch["camera"], batch["query"].shape[2]
    per_row = (camera.top + camera.bottom) / rows
    first = max(0, round((camera.top - above) / per_row))
    count = min(max(round((above + below) / per_row / STEP_PX), 1), (rows - first) // STEP_PX) * STEP_PX
    top = camera.top - first * per_row
    camera = Panorama(camera.values, camera.span, top, count * per_row - top)
    return batch | {"query": batch["query"][:, :, first : first + count], "camera": camera}


def cut(batch, view):
    """A batch whose query images are cut to the field of view of the `View`. No other function does this.

    Panoramas are cut to the field of view about their centre, or to photographs by the cameras `taken`, where
    the batch has them. Photographs stay as they are.
    """
    if "taken" in batch:
        batch = dict(batch)
        # Drawn lenses do not distort; looking whether they do would make a GPU wait.
        batch["query"] = cut_photographs(batch["query"], batch.pop("taken"), view.photo_px, undistort_steps=0)
        return batch
    camera = batch["camera"]
    if camera.kind == "photo" or view.FoV >= camera.span:
        return batch
    width = batch["query"].shape[-1]
    start, stop = view_columns(view.FoV, width, camera.span)
    camera = Panorama(camera.values, camera.span * (stop - start) / width, camera.top, camera.bottom)
    return batch | {"query": batch["query"][..., start:stop], "camera": camera}


def _draw_photographs(batch, view):
    """A batch of whole panoramas with the cameras of photographs to cut out of them."""
    draws = torch.rand(len(batch["position"]), view.CAMERA_DRAWS)
    taken, prior = (cameras.to(batch["query"].device) for cameras in view.draw_cameras(draws))
    centre = batch["heading"]
    return batch | {
        "taken": taken,
        "camera": prior.turned(centre),
        "tilt": torch.stack((taken.pitch, taken.roll), 1),
        "heading": wrap_degrees(taken.heading + centre),
    }


def _change_satellites(batch, change):
    """A batch whose satellite images, `others` (B, M, 3, S, S) among them, are changed one by one."""
    batch = batch | {"satellite": change(batch["satellite"])}
    if "others" in batch:
        others = batch["others"]
        batch["others"] = change(others.flatten(0, 1)).unflatten(0, others.shape[:2])
    return batch


def _recolour(image, textures, wraps=False):
    """Images changed by `jitter` and, with `textures`, by `retexture`."""
    image = jitter(image)
    return retexture(image, wraps) if textures else image


def draw_pair_change(B, S, W, scale_noise=1.0):
    """Mirror half of the samples, turn by quarters and up to 10 degrees more, scale and shift."""
    small = (uniform(B, -1, 1) * ROTATION_DEG / 360 * W).round().long()
    change = PairChange(
        mirror=torch.rand(B) < 0.5,
        columns=torch.randint(0, 4, (B,)) * (W // 4) + small,
        zoom=uniform(B, *SCALE),
        shift=(torch.rand(B, 2) * 2 - 1) * SHIFT * S,
    )
    if scale_noise == 1:
        return change
    scale_error = scale_noise ** uniform(B, -1, 1)
    return change._replace(zoom=change.zoom * scale_error, scale_error=scale_error)


def keep_inside(change, position, S, W):
    """The change, reduced to mirror and quarter turns for samples whose position would leave the image."""
    moved = move_position(position, change, S, W)
    out = ((moved < 0) | (moved >= S)).any(1)
    quarters = (change.columns.float() / (W / 4)).round().long() * (W // 4)
    columns = torch.where(out, quarters, change.columns)
    zoom, scale_error = (part.masked_fill(out, 1.0) for part in (change.zoom, change.scale_error))
    return change._replace(
        columns=columns, zoom=zoom, shift=change.shift * ~out[:, None], scale_error=scale_error
    )


def _matrix(change, W):
    """(B, 2, 2) that moves (x, y) = (col, row) from the centre, shift left out."""
    angle = change.columns * (2 * math.pi / W)
    cos, sin = torch.cos(angle) * change.zoom, torch.sin(angle) * change.zoom
    east = torch.where(change.mirror, -1.0, 1.0)
    return torch.stack((cos * east, -sin, sin * east, cos), -1).view(-1, 2, 2)


def move_position(position, change, S, W):
    """Positions (B, 2), (row, col), after the change."""
    moved = (_matrix(change, W) @ (position.flip(1) - S / 2)[..., None])[..., 0].flip(1)
    return moved + S / 2 + change.shift


def change_pair(batch, change):
    """A batch of whole panoramas or of photographs, changed by a `PairChange` on the batch's device.

    Negatives, `others` (B, M, 3, S, S), change like the satellite images.
    """
    satellite = batch["satellite"]
    S, W = satellite.shape[-1], _columns(batch)
    # The source of each output pixel: the matrix is a rotation or reflection times the zoom, easily inverted.
    inverse = _matrix(change, W).mT / change.zoom[:, None, None] ** 2
    origin = -(inverse @ change.shift.flip(1)[..., None]) * (2 / S)
    grid = F.affine_grid(torch.cat((inverse, origin), -1), satellite.shape, align_corners=False)
    moved = [name for name in ("satellite", "mask", "others", "others_mask") if name in batch]
    layers = torch.cat([batch[name].flatten(1, -3) for name in moved], 1)
    layers = F.grid_sample(layers.float(), grid, padding_mode="zeros", align_corners=False)
    counts = [batch[name][0].numel() // S**2 for name in moved]

    heading = torch.where(change.mirror, -batch["heading"], batch["heading"])
    if batch["camera"].kind == "photo":  # photographs look elsewhere after a turn, panoramas turn along
        changed, heading = _change_photograph(batch, change), heading + change.columns * (360 / W)
    else:
        changed = {"query": _turn_panorama(batch["query"], change)}
    changed |= {
        # A position exactly on the edge mirrors to S, just outside.
        "position": move_position(batch["position"], change, S, W).clamp(0, S - 1e-3),
        "heading": wrap_degrees(heading),
        "metres_per_pixel": batch["metres_per_pixel"] / (change.zoom / change.scale_error),
    }
    for name, part in zip(moved, layers.split(counts, 1), strict=True):
        changed[name] = part.unflatten(1, batch[name].shape[1:-2])
    return batch | changed


def _columns(batch):
    """Number of columns of a whole turn."""
    return PHOTO_COLUMNS if batch["camera"].kind == "photo" else batch["query"].shape[-1]


def _turn_panorama(query, change):
    W = query.shape[-1]
    # A turn by 1 brings column 0 to 1.
    columns = torch.arange(W, device=query.device) - change.columns[:, None]
    columns = torch.where(change.mirror[:, None], W - 1 - columns, columns) % W
    return _columns_of(query, columns)


def _columns_of(query, source):
    """Images (B, C, H, W) whose columns are those at `source` (B, W) of the given ones."""
    return query.gather(3, source[:, None, None].expand_as(query))


def _change_photograph(batch, change):
    """The changed entries of photographs, whose prior headings turn with the world."""
    mirror, query, prior = change.mirror, batch["query"], batch["camera"]
    prior = prior.like(torch.where(mirror[:, None], prior.mirrored().values, prior.values))
    pitch, roll = batch["tilt"].unbind(1)
    return {
        "tilt": torch.stack((pitch, torch.where(mirror, -roll, roll)), 1),
        "query": torch.where(mirror[:, None, None, None], query.flip(3), query),
        "camera": prior.turned(change.columns * (360 / PHOTO_COLUMNS)),
    }
