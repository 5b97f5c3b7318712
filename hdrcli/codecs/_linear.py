"""Common to the formats that hold light: numbers of a file to a linear `Image`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import BT709, Float32, Primaries, apply_matrix, rgb_to_rgb
from hdrcli.image import Image, Metadata, Transfer

_FAR_OUT, _NO_LIGHT = 10.0, 1e-3  # chromaticities that cannot be meant


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


def chromaticities(name: str, values: Sequence[float]) -> Primaries:
    """The primaries of x and y of red, green, blue and white; BT.709 where these make no sense or are those."""
    red, green, blue, white = ((round(values[i], 5), round(values[i + 1], 5)) for i in (0, 2, 4, 6))
    found = Primaries(name, red, green, blue, white)
    if replace(found, name=BT709.name) == BT709 or not np.isfinite(values).all() or np.abs(values).max() > _FAR_OUT:
        return BT709
    area = np.linalg.det(np.array([[*red, 1], [*green, 1], [*blue, 1]])) / 2
    dark = min(abs(y) for _, y in (red, green, blue)) < _NO_LIGHT or white[1] < _NO_LIGHT
    return BT709 if dark or abs(area) < _NO_LIGHT else found


def clipped(light: Float32, low: float, high: float) -> tuple[Float32, list[str]]:
    """Light within what a format can store, and notes that count what was not; not a number becomes 0."""
    if low <= light.min() and light.max() <= high:  # neither holds where there is a NaN
        return light, []
    counts = {
        f"values below {low:.6g} clipped" if low else "negative values clipped to 0": light < low,
        f"values above {high:.6g} clipped": light > high,
        "values that are not numbers written as 0": np.isnan(light),
    }
    notes = [f"{count} {what}" for what, where in counts.items() if (count := int(np.count_nonzero(where)))]
    return np.clip(np.nan_to_num(light, posinf=high, neginf=low), low, high), notes


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
