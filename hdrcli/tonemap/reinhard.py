"""Reinhard, Stark, Shirley, Ferwerda, "Photographic Tone Reproduction for Digital Images", SIGGRAPH 2002: global part.

We differ in one place: the white point is the 99.9th percentile of luminance, not its maximum, so that one hot pixel
does not darken the picture.
"""

import numpy as np
from numpy.typing import DTypeLike

from hdrcli.color import Float32, Floats, Samples, luminance, srgb_encode, to_float
from hdrcli.tonemap._rows import by_rows

KEY = 0.18
_DARKEST = 1e-6  # floor of luminance, in the units of the input


def reinhard(linear: Floats, kind: DTypeLike = np.float32) -> Samples:
    """Compresses luminance by L (1 + L / white^2) / (1 + L), L scaled so that its geometric mean is KEY.

    linear: (H, W, 3) BT.709 RGB of any scale. Returns (H, W, 3) sRGB code values.
    """
    light = _whole_light(linear)
    gain = np.float32(_gain(light))
    white = max(float(gain * np.percentile(light, 99.9)), KEY)

    def mapped(band: Float32) -> Float32:
        light = _light(band)
        scaled = light * gain
        compressed = scaled * (1 + scaled / np.float32(white**2)) / (1 + scaled)
        return srgb_encode(np.clip(band * (compressed / light)[..., None], 0, 1))

    return by_rows(linear, kind, mapped)


def key_gain(linear: Floats) -> float:
    """The gain that puts the geometric mean luminance of a linear picture at KEY."""
    return _gain(_whole_light(linear))


def _gain(light: Float32) -> float:
    return float(KEY / np.exp(np.mean(np.log(light), dtype=np.float64)))


def _whole_light(linear: Floats) -> Float32:
    """`_light` of a picture, made band by band."""
    return np.concatenate([_light(band) for band in np.array_split(linear, max(len(linear) // 128, 1))])


def _light(linear: Floats) -> Float32:
    """Luminance, at least a little; (H, W)."""
    return np.maximum(luminance(to_float(linear)), np.float32(_DARKEST))
