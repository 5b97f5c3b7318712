"""Common to the formats that hold light: numbers of a file to a linear `Image`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import BT709, Float32, Primaries, apply_matrix, rgb_to_rgb
from hdrcli.image import Image, Metadata, Transfer


def to_image(light: NDArray[Any], meta: Metadata, *, primaries: Primaries = BT709, white: float | None = None) -> Image:
    """A linear BT.709 image of (H, W) grey or (H, W, 3) RGB light in any primaries.

    Numbers that are not finite become 0 (not a number, minus infinity) or the largest finite one, with a note.
    """
    pixels = np.repeat(light[..., None], 3, axis=-1) if light.ndim == 2 else light
    pixels, notes = _finite(pixels)
    if primaries != BT709:
        pixels = apply_matrix(rgb_to_rgb(primaries, BT709), pixels)
    meta = replace(meta, notes=(*meta.notes, *notes))
    return Image(np.ascontiguousarray(pixels), Transfer.LINEAR, white=white, meta=meta)


def clipped(light: Float32, low: float, high: float) -> tuple[Float32, list[str]]:
    """Light within what a format can store, and notes that count what was not; not a number becomes 0."""
    with np.errstate(invalid="ignore"):
        counts = {
            f"values below {low:.6g} clipped" if low else "negative values clipped to 0": light < low,
            f"values above {high:.6g} clipped": light > high,
            "values that are not numbers written as 0": np.isnan(light),
        }
    notes = [f"{count} {what}" for what, where in counts.items() if (count := int(np.count_nonzero(where)))]
    return (np.clip(np.nan_to_num(light, posinf=high, neginf=low), low, high) if notes else light), notes


def _finite(pixels: NDArray[Any]) -> tuple[Float32, Sequence[str]]:
    """float32 pixels without infinities, in which overflowing half floats and divisions by zero end up."""
    with np.errstate(over="ignore"):
        single = pixels.astype(np.float32, copy=False)
    count = single.size - int(np.count_nonzero(np.isfinite(single)))
    if not count:
        return single, ()
    largest = float(np.finfo(np.float16 if pixels.dtype == np.float16 else np.float32).max)
    replaced = np.nan_to_num(single, nan=0.0, posinf=largest, neginf=0.0)
    return replaced, (f"{count} values that are not finite numbers replaced",)
