"""John Hable, "Uncharted 2: HDR Lighting", GDC 2010: a film-like curve with a toe and a shoulder, for each channel."""

import numpy as np
from numpy.typing import DTypeLike

from hdrcli.color import Float32, Floats, Samples, srgb_encode
from hdrcli.tonemap._rows import by_rows

_A, _B, _C, _D, _E, _F = 0.15, 0.50, 0.10, 0.20, 0.02, 0.30  # shoulder, linear and toe constants of the talk
_WHITE = 11.2  # linear value that becomes 1
_EXPOSURE = 2.0  # the talk's exposure bias


def filmic(linear: Floats, kind: DTypeLike = np.float32) -> Samples:
    """Maps (H, W, 3) linear BT.709 RGB, mid-grey at 0.18, to sRGB code values."""
    white = _curve(np.array(_WHITE, np.float32))

    def mapped(light: Float32) -> Float32:
        return srgb_encode(np.clip(_curve(np.float32(_EXPOSURE) * np.maximum(light, 0)) / white, 0, 1))

    return by_rows(linear, kind, mapped)


def _curve(x: Float32) -> Float32:
    curved = (x * (_A * x + _C * _B) + _D * _E) / (x * (_A * x + _B) + _D * _F) - _E / _F
    return np.asarray(curved, np.float32)
