"""Tone mapping by curves, which takes each pixel by itself: band by band, in little memory beside the picture."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from hdrcli.color import Float32, Floats, Samples, store, to_float

_ROWS = 128


def by_rows(linear: Floats, kind: DTypeLike, curve: Callable[[Float32], Float32]) -> Samples:
    """`curve` on all bands of rows of an (H, W, 3) picture, stored as `kind`."""
    mapped: Samples = np.empty(linear.shape, kind)
    for top in range(0, len(linear), _ROWS):
        store(curve(to_float(linear[top : top + _ROWS])), mapped[top : top + _ROWS])
    return mapped
