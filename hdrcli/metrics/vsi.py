"""VSI: Zhang, Shen, Li, "VSI: A visual saliency-induced index for perceptual image quality assessment", IEEE TIP 2014.

Saliency is SDSP: Zhang, Gu, Li, "SDSP: A novel saliency detection method by combining simple priors", ICIP 2013.
"""

from functools import cache

import cv2
import numpy as np

from hdrcli.color import Float32, srgb_decode

_SIDE = 256  # of the picture that saliency is found in
_CENTRE, _SPREAD = 0.021, 1.34  # of the band-pass filter: cycles per pixel, and width in natural logarithms
_REACH = 145.0  # pixels: how far attention falls off from the middle
_COLOUR = 0.001  # how quickly warm colours attract attention
_C_SALIENCY, _C_GRADIENT, _C_COLOUR = 1.27, 386.0, 130.0
_GRADIENT_POWER, _COLOUR_POWER = 0.40, 0.02
_TO_LMN = np.array([[0.06, 0.63, 0.27], [0.30, 0.04, -0.35], [0.34, -0.60, 0.17]], np.float32)
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    np.float32,
)
_WHITE = np.array([0.9642, 1.0, 0.8251], np.float32)  # D50, as the authors have it
_EPSILON = float(np.finfo(np.float32).eps)


def vsi(picture: Float32, reference: Float32) -> float:
    """Similarity of two RGB pictures, (H, W, 3) with values on the scale of 8-bit codes; 1 for equal ones.

    Values above 255 are taken as they are, so PU21 values need no scaling. Pictures are averaged over k x k pixels
    first, k being their smaller side over 256. Linear interpolation without a low-pass filter before it, as in the
    published Python versions, shrinks the picture for saliency.
    """
    found, wanted = (_Features(image) for image in (picture, reference))
    colour = _similarity(found.m, wanted.m, _C_COLOUR) * _similarity(found.n, wanted.n, _C_COLOUR)
    turned = np.where(colour < 0, np.cos(np.pi * _COLOUR_POWER), 1.0)  # real part of the power of a negative number
    local = (
        _similarity(found.saliency, wanted.saliency, _C_SALIENCY)
        * _similarity(found.gradient, wanted.gradient, _C_GRADIENT) ** _GRADIENT_POWER
        * np.abs(colour) ** _COLOUR_POWER
        * turned
    )
    weight = np.maximum(found.saliency, wanted.saliency).astype(np.float64)
    return float((np.sum(local * weight) + _EPSILON) / (np.sum(weight) + _EPSILON))


class _Features:
    """What VSI compares of one picture: maps of saliency, gradient and two opponent colours."""

    def __init__(self, picture: Float32) -> None:
        step = max(1, round(min(picture.shape[:2]) / 256))
        luma, self.m, self.n = (_shrink(plane, step) for plane in np.moveaxis(picture @ _TO_LMN.T, 2, 0))
        across, down = (
            cv2.Scharr(luma, cv2.CV_32F, *order, scale=1 / 16, borderType=cv2.BORDER_CONSTANT)
            for order in ((1, 0), (0, 1))
        )
        self.gradient = np.hypot(across, down)
        self.saliency = _shrink(saliency(picture), step)


def saliency(picture: Float32) -> Float32:
    """Where eyes go (SDSP): what stands out in a band of frequencies, the middle, warm colours; (H, W) from 0 to 1."""
    small = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    lab = _lab(np.asarray(small, np.float32))
    passed = np.fft.ifft2(np.fft.fft2(lab, axes=(0, 1)) * _band()[..., None], axes=(0, 1)).real
    contrast = np.sqrt(np.sum(passed**2, axis=2))
    opponents = lab[..., 1:]
    low, high = opponents.min(axis=(0, 1)), opponents.max(axis=(0, 1))
    warm = np.sum(((opponents - low) / (high - low + _EPSILON)) ** 2, axis=2)
    found = contrast * _middle() * (1 - np.exp(-warm / _COLOUR**2))
    rows, columns = (_stretch(size) for size in picture.shape[:2])
    full = rows @ found @ columns.T
    return np.asarray((full - full.min()) / (full.max() - full.min() + _EPSILON), np.float32)


def _similarity(a: Float32, b: Float32, constant: float) -> Float32:
    return np.asarray((2 * a * b + constant) / (a * a + b * b + constant))


def _shrink(plane: Float32, step: int) -> Float32:
    """Mean of step x step pixels around every step-th one."""
    plane = np.ascontiguousarray(plane)
    if step == 1:
        return plane
    blurred = cv2.blur(plane, (step, step), borderType=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(blurred[::step, ::step], np.float32)


def _lab(picture: Float32) -> Float32:
    xyz = srgb_decode(picture / np.float32(255)) @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), (903.3 * xyz + 16) / 116)
    x, y, z = np.moveaxis(f, 2, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=2)


@cache
def _band() -> np.ndarray:
    """The log-Gabor filter over the frequencies of a Fourier transform."""
    frequency = np.fft.fftfreq(_SIDE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    inside = (radius > 0) & (radius <= 0.5)
    logarithm = np.log(np.where(inside, radius, 1) / _CENTRE)
    return np.where(inside, np.exp(-(logarithm**2) / (2 * _SPREAD**2)), 0.0)


@cache
def _middle() -> np.ndarray:
    """How much attention the middle draws."""
    place = np.arange(_SIDE) - (_SIDE // 2 - 1)
    return np.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / _REACH**2)


@cache
def _stretch(size: int) -> np.ndarray:
    """(size, 256) linear interpolation that keeps the corners where they are."""
    places = np.linspace(0, _SIDE - 1, size)
    return np.asarray(np.maximum(1 - np.abs(places[:, None] - np.arange(_SIDE)), 0))
