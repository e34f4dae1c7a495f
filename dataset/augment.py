"""Augmentation of whole batches on the device that trains, each sample with parameters of its own.

Geometric changes move both views as one world would: satellite image, mask and position are resampled once, and the
panorama's columns are rolled or mirrored with them, so that heading and metres per pixel stay true. Shear is left out: no
panorama can follow it. Draws come from torch's global generator, which the training loop seeds from (seed, epoch, step), and
are made on the CPU, so that they do not hang on the device.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from common import camera
from common.geometry import view_columns, wrap_degrees
from dataset.appearance import blur, erase, jitter, restyle, retexture, uniform

MOVING = ("full", "strong", "textures")  # modes that move both views
MODES = ("none", "photometric", *MOVING)

ROTATION_DEG = 10.0
SCALE = (0.9, 1.1)
SHIFT = 0.1  # of the satellite image's side
PHOTO_COLUMNS = 3600  # a turn is whole columns of a panorama; of a photograph it is tenths of a degree


class PairChange(NamedTuple):
    """How each pair is changed, (B,) each, both views alike: mirrored east to west, then turned clockwise about the satellite
    image's centre, scaled by `zoom` and shifted by (rows, cols) of the satellite tensor. Turns are whole panorama columns.
    `untold`: the factor of the zoom that metres per pixel are not told.
    """

    mirror: torch.Tensor  # bool
    columns: torch.Tensor  # int
    zoom: torch.Tensor
    shift: torch.Tensor  # (B, 2)
    untold: torch.Tensor = torch.ones(())


def augment(batch, mode, FoV=360.0, cameras=None, scale_noise=1.0):
    """The batch (of `VigorDataset`, its panoramas whole) augmented as `mode` says, its panoramas cut to their field of view.

    scale_noise: a factor by which, at most, satellite images are larger or smaller than metres per pixel say; in `MOVING` modes.
    cameras: a `CameraRange` where photographs are to be cut out of panoramas; the batch then gets their `camera` and `tilt`, and
    `heading` becomes that of each.
    Images come back as floats within 0 and 255 where they were changed; position, heading and, but for that noise, metres per
    pixel fit them.
    The batch given is left as it was. Raises ValueError for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"augment {mode!r} is not one of {', '.join(MODES)}")
    if mode in MOVING:
        S, W = batch["satellite"].shape[-1], _columns(batch)
        drawn = draw_pair_change(len(batch["position"]), S, W, scale_noise)
        change = PairChange(*(part.to(batch["satellite"].device) for part in drawn))
        batch = change_pair(batch, keep_inside(change, batch["position"], S, W))
    if cameras and "camera" not in batch:
        batch = photograph(batch, cameras)
    if mode == "strong":
        batch = batch | {view: restyle(batch[view]) for view in ("panorama", "satellite")}
        if "others" in batch:
            batch = batch | {"others": _each(restyle, batch["others"])}
    if mode != "none":
        recolour, wraps = partial(_recolour, textures=mode == "textures"), "camera" not in batch
        street = erase(blur(recolour(batch["panorama"], wraps=wraps), wraps))
        batch = batch | {"panorama": street, "satellite": erase(recolour(batch["satellite"]))}
        if "others" in batch:
            batch = batch | {"others": _each(lambda image: erase(recolour(image)), batch["others"])}
    if "camera" in batch:
        return batch
    start, stop = view_columns(FoV, batch["panorama"].shape[-1])
    return batch | {"panorama": batch["panorama"][..., start:stop]}


def photograph(batch, cameras):
    """Photographs, of cameras drawn from a `CameraRange`, in place of a batch's whole panoramas."""
    taken, told = (part.to(batch["panorama"].device) for part in cameras.draw(torch.rand(len(batch["position"]), cameras.DRAWS)))
    centre = batch["heading"]
    return batch | {
        # Drawn lenses do not distort; to look whether they do would make a GPU wait.
        "panorama": camera.cut_photographs(batch["panorama"], taken, cameras.size, undistort_steps=0),
        "camera": camera.turned(told, centre),
        "tilt": taken[:, 1:3],
        "heading": wrap_degrees(taken[:, 0] + centre),
    }


def _each(change, images):
    """(B, M, 3, H, W) images, each changed by itself."""
    return change(images.flatten(0, 1)).unflatten(0, images.shape[:2])


def _recolour(image, textures, wraps=False):
    """What `jitter` makes of images, and with `textures` also `retexture`."""
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
    untold = scale_noise ** uniform(B, -1, 1)
    return change._replace(zoom=change.zoom * untold, untold=untold)


def keep_inside(change, position, S, W):
    """The change, but only its mirror and quarter turns for samples whose position it would move out of the image."""
    moved = move_position(position, change, S, W)
    out = ((moved < 0) | (moved >= S)).any(1)
    quarters = (change.columns.float() / (W / 4)).round().long() * (W // 4)
    columns = torch.where(out, quarters, change.columns)
    zoom, untold = (part.masked_fill(out, 1.0) for part in (change.zoom, change.untold))
    return change._replace(columns=columns, zoom=zoom, shift=change.shift * ~out[:, None], untold=untold)


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
    """Apply a `PairChange`, on the batch's device, to every part of a batch whose panoramas are whole, or are photographs.

    The images that a panorama is to be told from, `others` (B, M, 3, S, S), change with it.
    """
    satellite = batch["satellite"]
    S, W = satellite.shape[-1], _columns(batch)
    # Where each output pixel comes from. The matrix is a rotation or reflection times the zoom: its inverse needs no solver.
    inverse = _matrix(change, W).mT / change.zoom[:, None, None] ** 2
    origin = -(inverse @ change.shift.flip(1)[..., None]) * (2 / S)
    grid = F.affine_grid(torch.cat((inverse, origin), -1), satellite.shape, align_corners=False)
    moved = [name for name in ("satellite", "mask", "others", "others_mask") if name in batch]
    layers = torch.cat([batch[name].flatten(1, -3) for name in moved], 1)
    layers = F.grid_sample(layers.float(), grid, padding_mode="zeros", align_corners=False)
    counts = [batch[name][0].numel() // S**2 for name in moved]

    heading = torch.where(change.mirror, -batch["heading"], batch["heading"])
    if "camera" in batch:  # photographs look elsewhere after a turn, panoramas turn along
        changed, heading = _change_photograph(batch, change), heading + change.columns * (360 / W)
    else:
        changed = {"panorama": _turn_panorama(batch["panorama"], change)}
    changed |= {
        # A position on the very edge mirrors to S, just outside.
        "position": move_position(batch["position"], change, S, W).clamp(0, S - 1e-3),
        "heading": wrap_degrees(heading),
        "metres_per_pixel": batch["metres_per_pixel"] / (change.zoom / change.untold),
    }
    for name, part in zip(moved, layers.split(counts, 1), strict=True):
        changed[name] = part.unflatten(1, batch[name].shape[1:-2])
    return batch | changed


def _columns(batch):
    """In how many columns a whole turn is counted: a panorama's own."""
    return PHOTO_COLUMNS if "camera" in batch else batch["panorama"].shape[-1]


def _turn_panorama(panorama, change):
    W = panorama.shape[-1]
    columns = torch.arange(W, device=panorama.device) - change.columns[:, None]  # a turn by 1 brings column 0 to column 1
    columns = torch.where(change.mirror[:, None], W - 1 - columns, columns) % W
    return panorama.gather(3, columns[:, None, None].expand_as(panorama))


def _change_photograph(batch, change):
    """What becomes of photographs: those of a mirrored world are mirrored, and a turn turns what is told of their heading."""
    mirror, photograph, told = change.mirror, batch["panorama"], batch["camera"]
    told = torch.where(mirror[:, None], camera.mirrored(told), told)
    roll = torch.where(mirror, -batch["tilt"][:, 1], batch["tilt"][:, 1])
    return {
        "tilt": torch.stack((batch["tilt"][:, 0], roll), 1),
        "panorama": torch.where(mirror[:, None, None, None], photograph.flip(3), photograph),
        "camera": camera.turned(told, change.columns * (360 / PHOTO_COLUMNS)),
    }
