"""Classical tone mapping: the looks of `develop`, previews, baselines.

Every operator takes a linear (H, W, 3) BT.709 picture with mid-grey at 0.18 and gives sRGB-encoded values in [0, 1].
"""

from collections.abc import Callable, Mapping

import numpy as np

from hdrcli.color import Float32, srgb_encode
from hdrcli.tonemap.filmic import filmic
from hdrcli.tonemap.fusion import fusion
from hdrcli.tonemap.reinhard import reinhard


def none(linear: Float32) -> Float32:
    """Plain sRGB encoding; what is brighter than 1 is clipped."""
    return srgb_encode(np.clip(linear, 0, 1))


OPERATORS: Mapping[str, Callable[[Float32], Float32]] = {
    "fusion": fusion,
    "reinhard": reinhard,
    "filmic": filmic,
    "none": none,
}
