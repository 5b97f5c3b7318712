"""Perceptual quantiser (SMPTE ST 2084): light to the code values of HDR pictures in BT.2020 primaries, and back."""

import numpy as np
from numpy.typing import NDArray

from hdrcli.codecs import _linear
from hdrcli.color import BT709, BT2020, SDR_WHITE, Float32, apply_matrix, rgb_to_rgb
from hdrcli.image import Image

CODE_POINTS = (9, 16)  # primaries and transfer of ITU-T H.273

_PEAK = 10_000.0  # cd/m2
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_ROWS = 128


def encode(nits: Float32) -> Float32:
    """Luminance in cd/m2, [0, 10000], to PQ values in [0, 1]. Any shape."""
    y = (nits.astype(np.float64) / _PEAK) ** _M1
    return np.asarray(((_C1 + _C2 * y) / (1 + _C3 * y)) ** _M2, np.float32)


def decode(values: Float32) -> Float32:
    """PQ values in [0, 1] to luminance in cd/m2. Any shape."""
    root = values.astype(np.float64) ** (1 / _M2)
    return np.asarray(_PEAK * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1), np.float32)


def to_codes(image: Image, bits: int) -> tuple[NDArray[np.uint16], list[str]]:
    """(H, W, 3) codes of `bits` bits of a linear BT.709 image, and notes that count what PQ cannot hold.

    1.0 is the image's white, or 203 cd/m2 where it has none.
    """
    nits = np.float32(image.white or SDR_WHITE)
    light, notes = _linear.clipped(image.pixels, 0, _PEAK / float(nits))
    matrix = rgb_to_rgb(BT709, BT2020) * nits
    codes = np.empty(light.shape, np.uint16)
    for top in range(0, len(light), _ROWS):
        wide = np.clip(apply_matrix(matrix, light[top : top + _ROWS]), 0, _PEAK)
        codes[top : top + _ROWS] = np.rint(encode(wide) * np.float32(2**bits - 1))
    return codes, notes


def to_light(codes: NDArray[np.uint16], bits: int) -> Float32:
    """(H, W, 3) linear BT.2020 light of codes of `bits` bits, 1.0 for 203 cd/m2."""
    table = decode(np.arange(2**bits).astype(np.float32) / np.float32(2**bits - 1)) / np.float32(SDR_WHITE)
    return np.asarray(table[codes], np.float32)
