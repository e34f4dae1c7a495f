"""Photometric augmentation with parameters drawn for each image of a batch; geometry stays as it is.

Draws come from torch's global generator, on the CPU, like those of `dataset.augment`.
"""

import math

import torch
import torch.nn.functional as F

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.3, 0.3, 0.3, 0.1  # hue: of a full turn
BLUR_SHARE, BLUR_SIGMA = 0.3, (0.3, 1.5)  # pixels of the panorama
ERASE_SHARE, ERASE_AREA = 0.25, (0.02, 0.1)  # of the image
TEXTURE_SHARE, TEXTURE_RIMS = 0.5, (0, 1, 2)  # pixels around the middle of a random convolution's kernel

_GREY = torch.tensor((0.299, 0.587, 0.114))
_RGB_TO_YIQ = torch.tensor(((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)))
_YIQ_TO_RGB = torch.linalg.inv(_RGB_TO_YIQ)


def jitter(image):
    """Brightness, contrast, saturation and hue of (B, 3, H, W), changed as one colour matrix per sample."""
    B, _, H, W = image.shape
    turn = uniform(B, -HUE, HUE) * 2 * math.pi
    hue = torch.eye(3).repeat(B, 1, 1)
    hue[:, 1, 1], hue[:, 1, 2], hue[:, 2, 1], hue[:, 2, 2] = turn.cos(), -turn.sin(), turn.sin(), turn.cos()
    saturation = uniform(B, 1 - SATURATION, 1 + SATURATION)[:, None, None]
    grey = saturation * torch.eye(3) + (1 - saturation) * _GREY.expand(3, 3)
    matrix = grey @ _YIQ_TO_RGB @ hue @ _RGB_TO_YIQ
    contrast, brightness = (uniform(B, 1 - v, 1 + v)[:, None, None] for v in (CONTRAST, BRIGHTNESS))
    gain = (contrast * brightness * matrix).to(image.device)
    lift = ((1 - contrast) * brightness * _GREY).to(image.device)  # (B, 1, 3): towards the mean grey level

    pixels = image.flatten(2).float()  # (B, 3, HW)
    offset = lift @ pixels.mean(2, keepdim=True)
    return torch.baddbmm(offset, gain, pixels).clamp_(0, 255).view(B, 3, H, W)


def retexture(image, wraps=False):
    """Some images (B, 3, H, W) blended with a random convolution of themselves; floats within 0 and 255.

    Colours and textures change; edges and shapes stay, so a network relies less on the style of drawings.
    With `wraps`, columns continue across the seam. After Xu et al., 'Robust and Generalizable Visual
    Representation Learning via Random Convolutions' (ICLR 2021).
    """
    B, C, H, W = image.shape
    rim = TEXTURE_RIMS[-1]
    steps = torch.arange(-rim, rim + 1).abs()
    ring = torch.maximum(steps, steps[:, None])  # of each pixel of a kernel, from its middle on
    size = torch.tensor(TEXTURE_RIMS)[torch.randint(0, len(TEXTURE_RIMS), (B,))]
    kernel = torch.randn(B, C, C, *ring.shape) * (ring <= size.view(B, 1, 1, 1, 1))
    chosen = torch.rand(B) < TEXTURE_SHARE
    share = (torch.rand(B) * chosen).view(-1, 1, 1, 1).to(image.device)
    image = image.float()
    mean, spread = image.mean((1, 2, 3), keepdim=True), image.std((1, 2, 3), keepdim=True)
    x = F.pad(image - mean, (rim, rim, 0, 0), mode="circular" if wraps else "replicate")
    x = F.pad(x, (0, 0, rim, rim), mode="replicate").flatten(0, 1)[None]
    other = F.conv2d(x, kernel.flatten(0, 1).to(image.device), groups=B).view(B, C, H, W)
    other = other * (spread / other.std((1, 2, 3), keepdim=True).clamp_min(1e-3)) + mean
    return torch.lerp(image, other, share).clamp(0, 255)


def restyle(image):
    """Images (B, 3, H, W) as if by another camera, in other light, compressed; floats within 0 and 255.

    A tone curve per channel, colours mixed towards grey, uneven light, a lower resolution or another
    sharpness, noise, and blocks of strong compression. Each of the last three leaves out a third of the
    images.
    """
    B, _, H, W = image.shape
    image = image.float() / 255
    gamma = torch.exp(0.25 * torch.randn(B, 1) + 0.1 * torch.randn(B, 3)).clamp(0.4, 2.5)
    bend = 0.5 * uniform(B, -1, 1)
    lift, gain = 0.05 * torch.randn(B, 3), torch.exp(0.1 * torch.randn(B, 3))
    drawn = (gamma, lift, gain, bend, torch.rand(B) * 0.6)
    gamma, lift, gain, bend, grey = (v.view(B, -1, 1, 1).to(image.device) for v in drawn)
    image = image.clamp(1e-3, 1) ** gamma
    image = image + bend * image * (1 - image) * (2 * image - 1) * 2  # contrast of the middle tones
    image = torch.lerp(image, image.mean(1, keepdim=True), grey)
    field = torch.randn(B, 1, 4, 4).to(image.device)
    field = F.interpolate(field, (H, W), mode="bicubic", align_corners=False)
    image = _resharpen((image * gain + lift) * torch.exp(0.12 * field))
    amount = (0.03 * torch.rand(B) * (torch.rand(B) < 0.67)).view(B, 1, 1, 1).to(image.device)
    noise = torch.randn(B, 1, H, W).to(image.device)
    return _blocks(image + amount * noise).clamp(0, 1) * 255


def _resharpen(image):
    """Some images with a lower resolution, others sharpened."""
    B, _, H, W = image.shape
    coarse = F.avg_pool2d(image, 2, ceil_mode=True)
    coarse = F.interpolate(coarse, (H, W), mode="bilinear", align_corners=False)
    amount = uniform(B, -0.8, 1.0) * (torch.rand(B) < 0.67)
    return image + amount.view(-1, 1, 1, 1).to(image.device) * (image - coarse)


def _blocks(image):
    """Some images with less detail within blocks of 8 x 8 pixels, as after compression."""
    B, _, H, W = image.shape
    strength = (0.6 * torch.rand(B) * (torch.rand(B) < 0.33)).view(-1, 1, 1, 1).to(image.device)
    padded = F.pad(image, (0, -W % 8, 0, -H % 8), mode="replicate")
    flat = F.interpolate(F.avg_pool2d(padded, 8), scale_factor=8, mode="nearest")[..., :H, :W]
    return torch.lerp(image, flat, strength)


def blur(panorama, wraps=True):
    """Gaussian blur of some panoramas (B, 3, H, W); with `wraps`, columns continue across the seam."""
    B, C, H, W = panorama.shape
    sigma, chosen = uniform(B, *BLUR_SIGMA), torch.rand(B) < BLUR_SHARE
    steps = torch.arange(-4, 5)
    kernel = torch.exp(-(steps**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(panorama.device)
    kernel = kernel.repeat_interleave(C, 0)[:, None, None]  # (B C, 1, 1, 9)
    x = F.pad(panorama, (4, 4, 0, 0), mode="circular" if wraps else "replicate")
    x = F.pad(F.conv2d(x.view(1, -1, H, W + 8), kernel, groups=B * C), (0, 0, 4, 4), mode="replicate")
    x = F.conv2d(x, kernel.mT, groups=B * C).view(B, C, H, W).clamp(0, 255)  # sums of weights round
    return torch.where(chosen.view(-1, 1, 1, 1).to(panorama.device), x, panorama)


def erase(image):
    """One rectangle of some images (B, 3, H, W) painted with the image's mean colour."""
    B, _, H, W = image.shape
    area, ratio = uniform(B, *ERASE_AREA) * H * W, torch.exp(uniform(B, -math.log(3.0), math.log(3.0)))
    height, width = (area * ratio).sqrt().clamp(max=H), (area / ratio).sqrt().clamp(max=W)
    top, left = (torch.rand(B) * (H - height))[:, None], (torch.rand(B) * (W - width))[:, None]
    chosen = torch.rand(B) < ERASE_SHARE
    rows, cols = torch.arange(H) + 0.5, torch.arange(W) + 0.5
    in_rows = (rows >= top) & (rows < top + height[:, None]) & chosen[:, None]
    in_cols = (cols >= left) & (cols < left + width[:, None])
    erased = (in_rows[:, None, :, None] & in_cols[:, None, None, :]).to(image.device)
    return torch.where(erased, image.mean((2, 3), keepdim=True), image)


def uniform(B, low, high):
    """(B,) random numbers from `low` to `high`."""
    return low + (high - low) * torch.rand(B)
