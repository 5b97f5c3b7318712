"""Gain maps (ISO 21496-1): what takes an ordinary picture to its HDR rendition, and the numbers that describe it.

    HDR = (SDR + k) 2^(w g) - k,    g = low + (high - low) code^(1 / gamma)

on linear light where 1.0 is the white of the ordinary picture, code is the map's value in [0, 1], and the display's
headroom sets the weight w between 0 and 1.
"""

import math
import struct
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hdrcli.color import Float32

OFFSET = 1 / 64  # k; what the standard's informative annex and libultrahdr take

_LEAST_HEADROOM = 0.25  # stops, so that the weight is defined
_BRIGHT = 99.9  # percentile of the brightest channel at which a display gives all
_EIGHT_BITS = 255
_UNIT = 1_000_000  # denominator of the stored fractions
_MULTICHANNEL, _BASE_COLOUR_SPACE = 0x80, 0x40


class GainMap(NamedTuple):
    """codes: (h, w, 3) or (h, w) bytes. low, high: log2 gain of codes 0 and 255. headroom: log2, of the HDR."""

    codes: NDArray[np.uint8]
    low: float
    high: float
    headroom: float


def measure(sdr: Float32, hdr: Float32, *, step: int, channels: int) -> GainMap:
    """The map between two renditions of one picture.

    sdr, hdr: (H, W, 3) linear light in the same primaries, 1.0 the white of the ordinary picture. step: base pixels a
    side for each pixel of the map. channels: 3, or 1 for one gain of luminance, taken as the mean of the channels.
    """
    height, width = sdr.shape[:2]
    if channels == 1:
        sdr, hdr = sdr.mean(axis=2, keepdims=True), hdr.mean(axis=2, keepdims=True)
    gains = np.log2((np.maximum(hdr, 0) + np.float32(OFFSET)) / (np.maximum(sdr, 0) + np.float32(OFFSET)))
    size = (max(1, round(width / step)), max(1, round(height / step)))
    small = gains if step == 1 else cv2.resize(gains, size, interpolation=cv2.INTER_AREA)
    small = small.reshape(size[1], size[0], channels)
    low = float(small.min())
    span = max(float(small.max()) - low, 1 / _EIGHT_BITS)
    codes = np.rint(np.clip((small - np.float32(low)) / np.float32(span), 0, 1) * _EIGHT_BITS).astype(np.uint8)
    peak = float(np.percentile(hdr.max(axis=2), _BRIGHT))
    return GainMap(
        codes=codes if channels == 3 else codes[..., 0],
        low=low,
        high=low + span,
        headroom=max(_LEAST_HEADROOM, math.log2(max(peak, 1.0))),
    )


def packed(gain_map: GainMap) -> bytes:
    """The binary metadata of ISO 21496-1, annex C: fractions of log2 values, big-endian."""
    channels = 3 if gain_map.codes.ndim == 3 else 1
    flags = _BASE_COLOUR_SPACE | (_MULTICHANNEL if channels == 3 else 0)
    headrooms = _fraction(0.0, "I") + _fraction(gain_map.headroom, "I")
    channel = _fraction(gain_map.low, "i") + _fraction(gain_map.high, "i") + _fraction(1.0, "I")
    channel += _fraction(OFFSET, "i") + _fraction(OFFSET, "i")
    return struct.pack(">HHB", 0, 0, flags) + headrooms + channel * channels


def attributes(gain_map: GainMap) -> dict[str, str]:
    """The older description: attributes of Adobe's hdrgm 1.0 in XMP."""
    return {
        "Version": "1.0",
        "GainMapMin": f"{gain_map.low:.6f}",
        "GainMapMax": f"{gain_map.high:.6f}",
        "Gamma": "1",
        "OffsetSDR": f"{OFFSET:.6f}",
        "OffsetHDR": f"{OFFSET:.6f}",
        "HDRCapacityMin": "0",
        "HDRCapacityMax": f"{gain_map.headroom:.6f}",
        "BaseRenditionIsHDR": "False",
    }


def _fraction(value: float, code: str) -> bytes:
    return struct.pack(f">{code}I", round(value * _UNIT), _UNIT)
