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

MODES = ("none", "photometric", "full", "strong", "textures")
MOVING = ("full", "strong", "textures")  # modes that move both views

ROTATION_DEG = 10.0
SCALE = (0.9, 1.1)
SHIFT = 0.1  # of the satellite image's side
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.3, 0.3, 0.3, 0.1  # hue: of a full turn
BLUR_SHARE, BLUR_SIGMA = 0.3, (0.3, 1.5)  # pixels of the panorama
ERASE_SHARE, ERASE_AREA = 0.25, (0.02, 0.1)  # of the image
TEXTURE_SHARE, TEXTURE_SIZES = 0.5, (1, 3, 5)  # pixels of a random convolution's kernel
PHOTO_COLUMNS = 3600  # a turn is whole columns of a panorama; of a photograph it is tenths of a degree

_GREY = torch.tensor((0.299, 0.587, 0.114))
_RGB_TO_YIQ = torch.tensor(((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)))
_YIQ_TO_RGB = torch.linalg.inv(_RGB_TO_YIQ)


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


def draw_pair_change(B, S, W, scale_noise=1.0):
    """Mirror half of the samples, turn by quarters and up to 10 degrees more, scale and shift."""
    small = (_uniform(B, -1, 1) * ROTATION_DEG / 360 * W).round().long()
    change = PairChange(
        mirror=torch.rand(B) < 0.5,
        columns=torch.randint(0, 4, (B,)) * (W // 4) + small,
        zoom=_uniform(B, *SCALE),
        shift=(torch.rand(B, 2) * 2 - 1) * SHIFT * S,
    )
    if scale_noise == 1:
        return change
    untold = scale_noise ** _uniform(B, -1, 1)
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


def _recolour(image, textures, wraps=False):
    """What `jitter` makes of images, and with `textures` also `retexture`."""
    image = jitter(image)
    return retexture(image, wraps) if textures else image


def jitter(image):
    """Brightness, contrast, saturation and hue of (B, 3, H, W), changed as one colour matrix per sample."""
    B, _, H, W = image.shape
    turn = _uniform(B, -HUE, HUE) * 2 * math.pi
    hue = torch.eye(3).repeat(B, 1, 1)
    hue[:, 1, 1], hue[:, 1, 2], hue[:, 2, 1], hue[:, 2, 2] = turn.cos(), -turn.sin(), turn.sin(), turn.cos()
    saturation = _uniform(B, 1 - SATURATION, 1 + SATURATION)[:, None, None]
    matrix = (saturation * torch.eye(3) + (1 - saturation) * _GREY.expand(3, 3)) @ _YIQ_TO_RGB @ hue @ _RGB_TO_YIQ
    contrast, brightness = (_uniform(B, 1 - v, 1 + v)[:, None, None] for v in (CONTRAST, BRIGHTNESS))
    gain = (contrast * brightness * matrix).to(image.device)
    lift = ((1 - contrast) * brightness * _GREY).to(image.device)  # (B, 1, 3): towards each image's mean grey level

    pixels = image.flatten(2).float()  # (B, 3, HW)
    offset = lift @ pixels.mean(2, keepdim=True)
    return torch.baddbmm(offset, gain, pixels).clamp_(0, 255).view(B, 3, H, W)


def retexture(image, wraps=False):
    """Some images (B, 3, H, W) through a random convolution of their own, blended with what they were; floats within 0 and 255.

    wraps: whether columns go around the seam.
    Colours and textures become others, edges and shapes stay: what a network learns from drawings is then less of how they were
    drawn. After Xu et al., 'Robust and Generalizable Visual Representation Learning via Random Convolutions' (ICLR 2021).
    """
    B, C, H, W = image.shape
    size = TEXTURE_SIZES[int(torch.randint(0, len(TEXTURE_SIZES), ()))]
    kernel, chosen = torch.randn(B * C, C, size, size), torch.rand(B) < TEXTURE_SHARE
    share = (torch.rand(B) * chosen).view(-1, 1, 1, 1).to(image.device)
    image = image.float()
    mean, spread = image.mean((1, 2, 3), keepdim=True), image.std((1, 2, 3), keepdim=True)
    x, rim = image - mean, size // 2
    x = F.pad(x, (rim, rim, 0, 0), mode="circular" if wraps else "replicate")
    x = F.pad(x, (0, 0, rim, rim), mode="replicate").flatten(0, 1)[None]
    other = F.conv2d(x, kernel.to(image.device), groups=B).view(B, C, H, W)
    other = other * (spread / other.std((1, 2, 3), keepdim=True).clamp_min(1e-3)) + mean
    return torch.lerp(image, other, share).clamp(0, 255)


def restyle(image):
    """(B, 3, H, W), each as another camera, another day and another file would show it; floats within 0 and 255.

    A tone curve for each channel, colours mixed towards grey, light that varies over the image, a lower resolution or another
    sharpness, noise, and the blocks of a strong compression; a third of the images is left without each of the last three.
    """
    B, _, H, W = image.shape
    image = image.float() / 255
    gamma = torch.exp(0.25 * torch.randn(B, 1) + 0.1 * torch.randn(B, 3)).clamp(0.4, 2.5)
    bend = 0.5 * _uniform(B, -1, 1)
    lift, gain = 0.05 * torch.randn(B, 3), torch.exp(0.1 * torch.randn(B, 3))
    gamma, lift, gain, bend, grey = (v.view(B, -1, 1, 1).to(image.device) for v in (gamma, lift, gain, bend, torch.rand(B) * 0.6))
    image = image.clamp(1e-3, 1) ** gamma
    image = image + bend * image * (1 - image) * (2 * image - 1) * 2  # more or less contrast in the middle tones
    image = torch.lerp(image, image.mean(1, keepdim=True), grey)
    field = F.interpolate(torch.randn(B, 1, 4, 4).to(image.device), (H, W), mode="bicubic", align_corners=False)
    image = (image * gain + lift) * torch.exp(0.12 * field)
    image = _resharpen(image)
    amount = (0.03 * torch.rand(B) * (torch.rand(B) < 0.67)).view(B, 1, 1, 1).to(image.device)
    noise = torch.randn(B, 1, H, W).to(image.device)
    return _blocks(image + amount * noise).clamp(0, 1) * 255


def _resharpen(image):
    """Some images at half their resolution, others with the difference to it made larger, by amounts of their own."""
    H, W = image.shape[-2:]
    coarse = F.interpolate(F.avg_pool2d(image, 2, ceil_mode=True), (H, W), mode="bilinear", align_corners=False)
    amount = (_uniform(len(image), -0.8, 1.0) * (torch.rand(len(image)) < 0.67)).view(-1, 1, 1, 1).to(image.device)
    return image + amount * (image - coarse)


def _blocks(image):
    """Some images with what is fine within their blocks of 8 x 8 pixels weakened, as compression does."""
    B, _, H, W = image.shape
    chosen = torch.nonzero(torch.rand(B) < 0.33)[:, 0]
    strength = (0.6 * torch.rand(len(chosen))).view(-1, 1, 1, 1).to(image.device)
    chosen = chosen.to(image.device)
    if len(chosen):
        part = F.pad(image[chosen], (0, -W % 8, 0, -H % 8), mode="replicate")
        flat = F.interpolate(F.avg_pool2d(part, 8), scale_factor=8, mode="nearest")
        image[chosen] = torch.lerp(part, flat, strength)[..., :H, :W]
    return image


def blur(panorama, wraps=True):
    """Gaussian blur of some panoramas (B, 3, H, W), each with its own sigma, in place; whether columns wrap around the seam."""
    B, C, H, W = panorama.shape
    sigma, chosen = _uniform(B, *BLUR_SIGMA), _some(B, BLUR_SHARE)
    if len(chosen) == 0:
        return panorama
    steps = torch.arange(-4, 5)
    kernel = torch.exp(-(steps**2) / (2 * sigma[chosen, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(panorama.device).repeat_interleave(C, 0)[:, None, None]  # (n C, 1, 1, 9)
    chosen = chosen.to(panorama.device)
    x = F.pad(panorama[chosen], (4, 4, 0, 0), mode="circular" if wraps else "replicate")
    x = F.pad(F.conv2d(x.view(1, -1, H, W + 8), kernel, groups=len(kernel)), (0, 0, 4, 4), mode="replicate")
    panorama[chosen] = F.conv2d(x, kernel.mT, groups=len(kernel)).view(-1, C, H, W).clamp_(0, 255)  # sums of weights round
    return panorama


def erase(image):
    """One rectangle of some images (B, 3, H, W) painted with the image's mean colour, in place."""
    B, _, H, W = image.shape
    area, ratio = _uniform(B, *ERASE_AREA) * H * W, torch.exp(_uniform(B, -math.log(3.0), math.log(3.0)))
    height, width = (area * ratio).sqrt().clamp(max=H), (area / ratio).sqrt().clamp(max=W)
    top, left = torch.rand(B) * (H - height), torch.rand(B) * (W - width)
    chosen = _some(B, ERASE_SHARE)
    rows, cols = torch.arange(H) + 0.5, torch.arange(W) + 0.5
    in_rows = (rows >= top[chosen, None]) & (rows < (top + height)[chosen, None])
    in_cols = (cols >= left[chosen, None]) & (cols < (left + width)[chosen, None])
    erased = (in_rows[:, None, :, None] & in_cols[:, None, None, :]).to(image.device)
    chosen = chosen.to(image.device)
    part = image[chosen]
    image[chosen] = torch.where(erased, part.mean((2, 3), keepdim=True), part)
    return image


def _some(B, share):
    """Indices of a random share of a batch."""
    return torch.nonzero(torch.rand(B) < share)[:, 0]


def _uniform(B, low, high):
    return low + (high - low) * torch.rand(B)
