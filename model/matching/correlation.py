"""Cross-correlation of a satellite image's features with templates, large ones by Fourier transforms."""

import math

import torch
import torch.nn.functional as F


def correlate(satellite, template):
    """Scores (B, K, H, W), summed over channels, of templates (B, C, K, n, n), n odd, centred on each pixel.

    satellite: (B, C, H, W), zero beyond the image.
    """
    B, C, H, W = satellite.shape
    K, n = template.shape[2], template.shape[-1]
    if torch.compiler.is_exporting():
        return correlate_by_products(satellite, template)
    # The limits were measured on two cores, forwards and backwards, at 16 to 128 px.
    if n > 7 and (n * n > 10 * K or n * n * K > 10_000):
        return _Correlation.apply(satellite.float(), template.float())
    kernel = template.transpose(1, 2).reshape(B * K, C, n, n)
    return F.conv2d(satellite.reshape(1, B * C, H, W), kernel, padding=n // 2, groups=B).view(B, K, H, W)


def correlate_by_products(satellite, template):
    """`correlate` by Fourier transforms written as matrix products, for ONNX."""
    (H, W), n, device = satellite.shape[-2:], template.shape[-1], template.device
    rows, cols = _transform_size(H, n), _transform_size(W, n)
    # Frequencies; those of the other columns mirror these.
    down, across = torch.arange(rows, device=device), torch.arange(cols // 2 + 1, device=device)

    def waves(places, frequencies, length):
        angle = torch.outer(places, frequencies) % length * (2 * math.pi / length)
        return angle.cos(), angle.sin()

    def spectrum(x):
        height, width = (torch.arange(side, device=device) for side in x.shape[-2:])
        (cosine, sine), (cosine_down, sine_down) = waves(width, across, cols), waves(down, height, rows)
        real, minus = x @ cosine, x @ sine
        return cosine_down @ real - sine_down @ minus, -(cosine_down @ minus + sine_down @ real)

    (a, b), (c, d) = spectrum(satellite[:, :, None]), spectrum(template)
    # Of the satellite's times the template's conjugate.
    real, imaginary = (a * c + b * d).sum(1), (b * c - a * d).sum(1)
    # The middle of the template, not its corner, belongs on the pixel.
    cosine, sine = waves(torch.arange(H, device=device) - n // 2, down, rows)
    real, imaginary = cosine @ real - sine @ imaginary, cosine @ imaginary + sine @ real
    cosine, sine = waves(across, torch.arange(W, device=device) - n // 2, cols)
    weight = torch.where((across == 0) | (2 * across == cols), 1.0, 2.0) / (rows * cols)
    return (real * weight) @ cosine - (imaginary * weight) @ sine


def _transform_size(side, n):
    """Length of a transform; what wraps around further than half a template lies beyond the image."""
    return fast_length(max(side + n // 2, n))


def fast_length(least):
    """The smallest product of twos, threes and fives that is at least so large: fast for real transforms.

    SciPy's `next_fast_len` gives the same, but torch.compile cannot trace into it, and the decorator that
    keeps it from doing so takes seconds to import.
    """
    while 60**10 % least:  # until it has no other prime factors
        least += 1
    return least


class _Correlation(torch.autograd.Function):
    """`correlate` by real FFTs, also backwards, where PyTorch's gradient of rfft2 runs complex ones."""

    @staticmethod
    def forward(ctx, satellite, template):
        (H, W), n = satellite.shape[-2:], template.shape[-1]
        size = [_transform_size(side, n) for side in (H, W)]
        of_satellite, of_template = torch.fft.rfft2(satellite, s=size), torch.fft.rfft2(template, s=size)
        ctx.save_for_backward(of_satellite, of_template)
        ctx.shape, ctx.size, ctx.n = (H, W), size, n
        spectrum = _sum_of_products(of_satellite.conj()[:, :, None], of_template, 1).conj()
        # The middle of the template, not its corner, belongs on the pixel.
        return torch.fft.irfft2(spectrum, s=size).roll((n // 2, n // 2), (-2, -1))[..., :H, :W]

    @staticmethod
    def backward(ctx, gradient):
        of_satellite, of_template = ctx.saved_tensors
        (H, W), size, n = ctx.shape, ctx.size, ctx.n
        gradient = F.pad(gradient, (0, size[1] - W, 0, size[0] - H)).roll((-(n // 2), -(n // 2)), (-2, -1))
        of_gradient = torch.fft.rfft2(gradient)[:, None]  # (B, 1, K, ., .)
        for_satellite = for_template = None
        if ctx.needs_input_grad[0]:
            spectrum = _sum_of_products(of_gradient, of_template, 2)
            for_satellite = torch.fft.irfft2(spectrum, s=size)[..., :H, :W]
        if ctx.needs_input_grad[1]:
            spectrum = of_satellite[:, :, None] * of_gradient.conj().resolve_conj()
            for_template = torch.fft.irfft2(spectrum, s=size)[..., :n, :n]
        return for_satellite, for_template


def _sum_of_products(a, b, axis):
    """Sum of `a`, broadcast, times `b` over an axis, one entry after the other to save memory."""
    a, b = a.resolve_conj(), b.resolve_conj()
    many = b.shape[axis]
    a = a.expand(*a.shape[:axis], many, *a.shape[axis + 1 :])
    total = a.select(axis, 0) * b.select(axis, 0)
    for i in range(1, many):
        total.addcmul_(a.select(axis, i), b.select(axis, i))
    return total
