"""Reinhard, Stark, Shirley, Ferwerda, "Photographic Tone Reproduction for Digital Images", SIGGRAPH 2002: global part.

We differ in one place: the white point is the 99.9th percentile of luminance, not its maximum, so that one hot pixel
does not darken the picture.
"""

import numpy as np

from hdrcli.color import Float32, luminance, srgb_encode

KEY = 0.18
_DARKEST = 1e-6  # floor of luminance, in the units of the input


def reinhard(linear: Float32) -> Float32:
    """Compresses luminance by L (1 + L / white^2) / (1 + L), L scaled so that its geometric mean is KEY.

    linear: (H, W, 3) BT.709 RGB of any scale. Returns (H, W, 3) sRGB-encoded in [0, 1].
    """
    light = np.maximum(luminance(linear), np.float32(_DARKEST))
    scaled = light * np.float32(key_gain(linear))
    white = max(float(np.percentile(scaled, 99.9)), KEY)
    mapped = scaled * (1 + scaled / np.float32(white**2)) / (1 + scaled)
    return srgb_encode(np.clip(linear * (mapped / light)[..., None], 0, 1))


def key_gain(linear: Float32) -> float:
    """The gain that puts the geometric mean luminance of a linear picture at KEY."""
    light = np.maximum(luminance(linear), np.float32(_DARKEST))
    return float(KEY / np.exp(np.mean(np.log(light), dtype=np.float64)))
