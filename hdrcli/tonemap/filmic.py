"""John Hable, "Uncharted 2: HDR Lighting", GDC 2010: a film-like curve with a toe and a shoulder, for each channel."""

import numpy as np

from hdrcli.color import Float32, srgb_encode

_A, _B, _C, _D, _E, _F = 0.15, 0.50, 0.10, 0.20, 0.02, 0.30  # shoulder, linear and toe constants of the talk
_WHITE = 11.2  # linear value that becomes 1
_EXPOSURE = 2.0  # the talk's exposure bias


def filmic(linear: Float32) -> Float32:
    """Maps (H, W, 3) linear BT.709 RGB, mid-grey at 0.18, to sRGB-encoded values in [0, 1]."""
    mapped = _curve(np.float32(_EXPOSURE) * np.maximum(linear, 0)) / _curve(np.array(_WHITE, np.float32))
    return srgb_encode(np.clip(mapped, 0, 1))


def _curve(x: Float32) -> Float32:
    curved = (x * (_A * x + _C * _B) + _D * _E) / (x * (_A * x + _B) + _D * _F) - _E / _F
    return np.asarray(curved, np.float32)
