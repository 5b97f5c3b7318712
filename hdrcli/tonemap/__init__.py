"""Classical tone mapping: the looks of `develop`, previews, baselines.

Every operator takes a linear (H, W, 3) BT.709 picture with mid-grey at 0.18 and gives sRGB code values: float32 in
[0, 1], or unsigned integers of 8 or 16 bits where these are asked for.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from hdrcli.color import Floats, Samples, srgb_encode
from hdrcli.tonemap._rows import by_rows
from hdrcli.tonemap.filmic import filmic
from hdrcli.tonemap.fusion import fusion
from hdrcli.tonemap.reinhard import reinhard


class Operator(Protocol):
    """Tone mapping; kind: the type of the result."""

    def __call__(self, linear: Floats, kind: DTypeLike = np.float32) -> Samples: ...


def none(linear: Floats, kind: DTypeLike = np.float32) -> Samples:
    """Plain sRGB encoding; what is brighter than 1 is clipped."""
    return by_rows(linear, kind, lambda light: srgb_encode(np.clip(light, 0, 1)))


def clipped(encoded: Floats, kind: DTypeLike = np.float32) -> Samples:
    """What is finished already, (H, W, 3) sRGB code values, without what lies outside [0, 1]."""
    return by_rows(encoded, kind, lambda codes: np.clip(codes, 0, 1))


OPERATORS: Mapping[str, Operator] = {
    "fusion": fusion,
    "reinhard": reinhard,
    "filmic": filmic,
    "none": none,
}
