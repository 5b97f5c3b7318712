"""The Bayer mosaic of a camera, and the two ways to feed it to a network: canonical and native.

A packed mosaic has the four planes B, Gb, R, Gr, in that order, of the 2x2 block

        R  Gr
        Gb B
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from hdrcli.color import Float32, Float64, luminance
from hdrcli.image import Metadata

PLANES = ("B", "Gb", "R", "Gr")
_PLACES = ((1, 1), (1, 0), (0, 0), (0, 1))  # (row, column) in the 2x2 block of each plane

MIDDLE_GREY = 0.18
_DARKEST = 1e-4  # floor of the luminance in the anchor's logarithm, in parts of the white level
_CLIPPED = 0.985  # share of the white level from which a channel counts as clipped


@dataclass(frozen=True, slots=True)
class Mosaic:
    """What a sensor recorded, phase-shifted so that R is at (0, 0) and both sides are even.

    counts: (H, W) float32 sensor counts, not rotated.
    black: (2, 2) black level by position in the block. white: the count at which a channel clips.
    balance: white-balance multipliers of R, G, B with G = 1.
    matrix: 3x3, white-balanced camera RGB to linear BT.709; its rows sum to 1, so white stays white.
    crop: (top, left, height, width) of the picture inside `counts`, before rotation.
    orientation: EXIF orientation, 1 to 8, still to be applied. bits: nominal bit depth.
    """

    counts: Float32
    black: Float32
    white: float
    balance: Float64
    matrix: Float64
    crop: tuple[int, int, int, int]
    orientation: int = 1
    bits: int = 10
    meta: Metadata = field(default_factory=Metadata)


def pack(mosaic: Float32) -> Float32:
    """(H, W) mosaic with R at (0, 0) to (4, H/2, W/2) planes B, Gb, R, Gr."""
    return np.ascontiguousarray(np.stack([mosaic[row::2, column::2] for row, column in _PLACES]))


def unpack(planes: Float32) -> Float32:
    """(4, h, w) planes B, Gb, R, Gr to the (2h, 2w) mosaic; the inverse of `pack`."""
    _, height, width = planes.shape
    mosaic = np.empty((2 * height, 2 * width), planes.dtype)
    for plane, (row, column) in zip(planes, _PLACES, strict=True):
        mosaic[row::2, column::2] = plane
    return mosaic


def native(mosaic: Mosaic, ev: float = 0.0) -> Float32:
    """The feed of raw_to_tonemappedHDR's own weights: 10-bit counts / 1020, no black level, no white balance.

    Returns (4, h, w) float32, about [0, 1]; other bit depths are brought to the 10-bit scale first.
    """
    to_ten_bits = 1023 / (2**mosaic.bits - 1)
    return pack(mosaic.counts) * np.float32(2.0**ev * to_ten_bits / 1020)


def canonical(mosaic: Mosaic, ev: float = 0.0) -> Float32:
    """The same virtual sensor for every camera: linear BT.709 at Bayer sites, a mid-grey scene at 0.18.

    Black level and white level removed, white balance and the camera matrix applied per 2x2 block (the difference of
    the two greens is kept), clipped highlights drawn to neutral, everything scaled by the anchor of the whole picture
    and by 2^ev. Returns (4, h, w) float32 planes B, Gb, R, Gr; values may be negative (noise) and above 1.
    """
    planes = camera_linear(mosaic)
    gain = np.float32(anchor(planes) * 2.0**ev)
    return planes * gain


def camera_linear(mosaic: Mosaic) -> Float32:
    """`canonical` before the anchor: (4, h, w) in parts of the sensor's white level."""
    black = np.array([mosaic.black[place] for place in _PLACES], np.float32)[:, None, None]
    blue, gb, red, gr = (pack(mosaic.counts) - black) / (np.float32(mosaic.white) - black)
    green, difference = (gr + gb) / 2, gr - gb
    clip = [_clip_weight(channel) for channel in (red, np.maximum(gr, gb), blue)]
    red, blue = red * np.float32(mosaic.balance[0]), blue * np.float32(mosaic.balance[2])
    green = np.where(clip[1] > 0, np.maximum(green, green + clip[1] * ((red + blue) / 2 - green)), green)
    difference = difference * (1 - clip[1])
    all_clipped = np.minimum.reduce(clip)
    rgb = np.stack([red, green, blue])
    rgb += all_clipped * (rgb.max(axis=0) - rgb)
    red, green, blue = np.tensordot(mosaic.matrix.astype(np.float32), rgb, axes=1)
    return np.stack([blue, green - difference / 2, red, green + difference / 2]).astype(np.float32)


def anchor(planes: Float32) -> float:
    """The gain that puts the geometric mean luminance of (4, h, w) linear planes at 0.18.

    Luminance is box-averaged over 8x8 sensor pixels first, so that noise does not pull the logarithm down.
    """
    blue, gb, red, gr = planes
    light = luminance(np.stack([red, (gr + gb) / 2, blue], axis=-1))
    height, width = light.shape
    small = cv2.resize(light, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA)
    return float(MIDDLE_GREY / np.exp(np.mean(np.log(np.maximum(small, _DARKEST)))))


def _clip_weight(channel: Float32) -> Float32:
    """0 below the clipping level, 1 from it on, with a short ramp between so that no edge appears."""
    weight: Float32 = np.clip((channel - 0.96) / (_CLIPPED - 0.96), 0, 1).astype(np.float32)
    return weight
