"""Differentiable distances between pictures for training; torch tensors (N, 3, H, W), one number per picture."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hdrcli.metrics import pu

_BINS = 64
_REACH = 3.0  # of the histogram, in natural logarithms of a ratio of channels
_FALL_OFF = 0.02  # of a pixel's weight around its place
_SIDE = 150  # larger pictures are reduced to this
_TINY = 1e-6
_MU = 5000.0


def mu_law(light: Tensor, mu: float = _MU) -> Tensor:
    """log(1 + mu v) / log(1 + mu) of linear light v in [0, 1] (Kalantari and Ramamoorthi, SIGGRAPH 2017).

    FHDR's code takes light as 2v - 1; below 0, where that gives NaN, light counts as 0 here.
    """
    return torch.log1p(mu * light.clamp(min=0)) / math.log1p(mu)


def pu21(light: Tensor) -> Tensor:
    """`hdrcli.metrics.pu.pu21` of relative light, 1.0 at the white of that metric, without its upper clamp."""
    p = pu.PARAMETERS
    power = (pu.WHITE * light).clamp(min=0.005) ** p[3]
    return p[6] * (((p[0] + p[1] * power) / (1 + p[2] * power)) ** p[4] - p[5])


def rgb_uv_histogram(pictures: Tensor) -> Tensor:
    """The histogram of colours of HistoGAN (Afifi, Brubaker, Brown, CVPR 2021), in double-logarithmic chromaticity.

    pictures: (N, 3, H, W) RGB, clamped to [0, 1]; of one taller or wider than 150 pixels 150x150 samples are taken.
    Returns (N, 3, 64, 64) that sums to 1 per picture: for each channel, the logarithms of its ratios to the other two,
    every pixel weighted by its intensity.
    """
    with torch.autocast(pictures.device.type, enabled=False):
        pictures = pictures.to(torch.promote_types(pictures.dtype, torch.float32)).clamp(0, 1)
        if max(pictures.shape[2:]) > _SIDE:
            pictures = F.interpolate(pictures, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
        pixels = pictures.flatten(2)
        intensity = (pixels.square().sum(1) + _TINY).sqrt()[:, :, None]
        red, green, blue = torch.log(pixels + _TINY).unbind(1)
        red_green, red_blue, green_blue = (_shares(ratio) for ratio in (red - green, red - blue, green - blue))
        planes = [
            (intensity * red_green).mT @ red_blue,
            ((intensity * red_green).mT @ green_blue).flip(1),  # a ratio turned over is its row of bins reversed
            ((intensity * red_blue).mT @ green_blue).flip(1, 2),
        ]
        histogram = torch.stack(planes, dim=1)
        return histogram / (histogram.sum(dim=(1, 2, 3), keepdim=True) + _TINY)


def hellinger(first: Tensor, second: Tensor) -> Tensor:
    """Hellinger distance of distributions (N, ...) that sum to 1; (N,) from 0 to 1.

    raw_to_tonemappedHDR takes one root over the whole batch and divides by its size; for a batch of 1 that is the same.
    """
    squares = (first.sqrt() - second.sqrt()).square().flatten(1).sum(1)
    return (squares / 2 + 1e-12).sqrt()  # the small number keeps the gradient finite where both are equal


def _shares(ratio: Tensor) -> Tensor:
    """How much of each pixel (N, P) falls to each bin: (N, P, 64), by an inverse quadratic."""
    bins = torch.linspace(-_REACH, _REACH, _BINS, device=ratio.device, dtype=torch.float64).to(ratio.dtype)
    return 1 / (1 + ((ratio[:, :, None] - bins) / _FALL_OFF).square())
