"""Transfer functions, primaries, matrices and luminance: pure functions on numpy arrays, each with its standard."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floats = NDArray[Any]  # float32 or float16
Samples = NDArray[Any]  # the same, or uint8 or uint16 over their full range


@dataclass(frozen=True, slots=True)
class Primaries:
    """CIE 1931 xy chromaticities of the red, green and blue primaries and of the white point."""

    name: str
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float] = (0.3127, 0.3290)


BT709 = Primaries("BT.709", (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))  # ITU-R BT.709, also sRGB
DISPLAY_P3 = Primaries("Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))  # SMPTE EG 432-1 with D65
ADOBE_RGB = Primaries("Adobe RGB (1998)", (0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
BT2020 = Primaries("BT.2020", (0.708, 0.292), (0.170, 0.797), (0.131, 0.046))  # ITU-R BT.2020

SDR_WHITE = 203.0  # cd/m2 of diffuse white, ITU-R BT.2408

CLIPPED_CODE = 250 / 255  # a code value from here on counts as clipped, also after JPEG coding

LUMINANCE_709 = np.array([0.2126, 0.7152, 0.0722], np.float32)  # ITU-R BT.709 luma weights, on linear light

# Adapted from the Bradford cone responses (ICC.1:2022, annex E).
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_float(samples: Samples) -> Float32:
    """Samples of any shape as float32; unsigned integers, over their full range, become numbers in [0, 1]."""
    if samples.dtype.kind == "u":
        return np.asarray(np.divide(samples, np.float32(np.iinfo(samples.dtype).max), dtype=np.float32))
    return samples.astype(np.float32, copy=False)


def store(numbers: Float32, target: Samples) -> None:
    """Fills samples with float32 numbers, for integers from [0, 1] to their full range and rounded to nearest."""
    if target.dtype.kind == "u":
        full = np.float32(np.iinfo(target.dtype).max)
        target[...] = np.rint(np.clip(numbers * full, 0, full))
    else:
        target[...] = numbers


def srgb_encode(linear: Float32) -> Float32:
    """Linear light to sRGB code values (IEC 61966-2-1). Any shape; negative values are mirrored."""
    magnitude = np.abs(linear)
    curved = 1.055 * np.power(magnitude, 1 / 2.4) - 0.055
    encoded: Float32 = np.where(magnitude <= 0.0031308, 12.92 * magnitude, curved).astype(np.float32)
    return np.copysign(encoded, linear)


def srgb_decode(encoded: Float32) -> Float32:
    """sRGB code values to linear light (IEC 61966-2-1). Any shape; negative values are mirrored."""
    magnitude = np.abs(encoded)
    curved = np.power((magnitude + 0.055) / 1.055, 2.4)
    linear: Float32 = np.where(magnitude <= 0.04045, magnitude / 12.92, curved).astype(np.float32)
    return np.copysign(linear, encoded)


def luminance(linear: Float32) -> Float32:
    """Relative luminance Y of linear BT.709 RGB: (..., 3) to (...), in the units of the input."""
    return np.asarray(linear @ LUMINANCE_709, np.float32)


def rgb_to_xyz(primaries: Primaries) -> Float64:
    """3x3 matrix from linear RGB to CIE XYZ, with Y = 1 for white (SMPTE RP 177)."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in (primaries.red, primaries.green, primaries.blue)]).T
    scale = np.linalg.solve(columns, white_xyz(primaries.white))
    return np.asarray(columns * scale, np.float64)


def white_xyz(white: tuple[float, float]) -> Float64:
    """CIE XYZ of a white point given as xy, with Y = 1."""
    x, y = white
    return np.array([x / y, 1.0, (1 - x - y) / y])


def adaptation(source_xyz: Float64, target_xyz: Float64) -> Float64:
    """Bradford chromatic adaptation: 3x3 matrix on XYZ that carries one white to the other (ICC.1:2022, annex E)."""
    ratio = (_BRADFORD @ target_xyz) / (_BRADFORD @ source_xyz)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(ratio) @ _BRADFORD, np.float64)


def rgb_to_rgb(source: Primaries, target: Primaries) -> Float64:
    """3x3 matrix between the linear RGB of two sets of primaries, adapted by Bradford where the whites differ."""
    adapt = adaptation(white_xyz(source.white), white_xyz(target.white))
    return np.asarray(np.linalg.inv(rgb_to_xyz(target)) @ adapt @ rgb_to_xyz(source), np.float64)


def apply_matrix(matrix: Float64, rgb: Float32) -> Float32:
    """Multiplies every pixel of (..., 3) by a 3x3 matrix."""
    return np.asarray(rgb @ matrix.T.astype(np.float32), np.float32)
