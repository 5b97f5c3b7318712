"""Exposure fusion: the look that `develop` aims at.

Mertens, Kautz, Van Reeth, "Exposure Fusion", Pacific Graphics 2007, with the default weights of OpenCV's
`createMergeMertens`: contrast times saturation. The two finest levels of the pyramids, nearly all of the work, are made
tile by tile, and made again when they are needed, so that memory holds no more than level 2 of the whole picture:

    tiles of the picture - level 0 - level 1 - level 2 of the whole picture - all levels below it, blended
    tiles of the picture - level 0 - level 1 - blended on top of that
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import cv2
import numpy as np
from numpy.typing import DTypeLike

from hdrcli.color import Float32, Floats, Samples, store, to_float
from hdrcli.tiling import Span, Tiling, spans

EXPOSURES = (-4.0, -2.0, 0.0, 2.0)  # in stops

_TILED_LEVELS = 2
_TILING = Tiling(multiple_of=2**_TILED_LEVELS, halo=16, tile=384)  # filters reach 12 pixels
_KNEE = 0.0031308  # where the sRGB curve (IEC 61966-2-1) stops being straight


def fusion(linear: Floats, kind: DTypeLike = np.float32) -> Samples:
    """Fuses four sRGB-encoded exposures of a linear picture with OpenCV's default weights.

    linear: (H, W, 3) BT.709 RGB, mid-grey at 0.18. Returns (H, W, 3) sRGB code values.
    """
    height, width, _ = linear.shape
    rows, columns = (_spans(side) for side in (height, width))
    tiles = list(product(rows, columns))
    fused: Samples = np.empty(linear.shape, kind)
    below = _blended(_level2(linear, tiles), max(min(height, width).bit_length() - 1 - _TILED_LEVELS, 0))

    def ascend(tile: tuple[Span, Span]) -> None:
        window, kept, inside = zip(*((span.window, span.kept, span.inside) for span in tile), strict=True)
        planes = _blended(_exposed(_floats(linear[window])), _TILED_LEVELS, below[:, *map(_quarter, window)])
        store(np.moveaxis(planes[:, *inside], 0, 2).clip(0, 1), fused[kept])

    _for_each(ascend, tiles)
    return fused


def _level2(linear: Floats, tiles: Sequence[tuple[Span, Span]]) -> Float32:
    """The stack of a whole picture at a quarter of its size."""
    height, width, _ = linear.shape
    stack = np.empty((len(EXPOSURES), 4, -(-height // 4), -(-width // 4)), np.float32)

    def descend(tile: tuple[Span, Span]) -> None:
        window, kept, inside = zip(*((span.window, span.kept, span.inside) for span in tile), strict=True)
        level2 = _down(_down(_exposed(_floats(linear[window]))))
        stack[:, :, *map(_quarter, kept)] = level2[:, :, *map(_quarter, inside)]

    _for_each(descend, tiles)
    return stack


def _spans(length: int) -> list[Span]:
    """Tiles along an axis of any length, of which the last takes what is beyond the lattice."""
    whole = spans(-(-length // 4) * 4, _TILING.tile, _TILING)
    return [Span(*(slice(part.start, min(part.stop, length)) for part in span)) for span in whole]


def _quarter(pixels: slice) -> slice:
    """Pixels of the picture in pixels of level 2."""
    return slice(pixels.start // 4, -(-pixels.stop // 4))


def _for_each(work: Callable[[tuple[Span, Span]], None], tiles: Iterable[tuple[Span, Span]]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, tiles):
            pass


def _floats(light: Floats) -> Float32:
    """As single floats; OpenCV is seven times as quick as numpy to make them of half ones."""
    if light.dtype != np.float16:
        return to_float(light)
    return np.asarray(cv2.add(light, 0, dtype=cv2.CV_32F))  # type: ignore[call-overload]  # it does take numbers


def _exposed(linear: Float32) -> Float32:
    """A stack: red, green, blue, sRGB-encoded, and weight of each exposure of (h, w, 3) light, (4, 4, h, w)."""
    light = np.maximum(np.moveaxis(linear, 2, 0), 0, order="C")
    root = light ** np.float32(1 / 2.4)
    stack = np.empty((len(EXPOSURES), 4, *light.shape[1:]), np.float32)
    for exposure, ev in zip(stack, EXPOSURES, strict=True):
        curved = root * np.float32(1.055 * 2 ** (ev / 2.4)) - np.float32(0.055)
        straight = _capped(light, _KNEE / 2**ev) * np.float32(12.92 * 2**ev)
        exposure[:3] = _capped(np.maximum(curved, straight, out=curved), 1)
        exposure[3] = _weight(*exposure[:3])
    stack[:, 3] /= stack[:, 3].sum(axis=0)
    return stack


def _capped(planes: Float32, most: float) -> Float32:
    """(3, h, w) numbers, none above `most`; OpenCV is three times as quick as numpy with a single number."""
    rows = planes.reshape(-1, planes.shape[2])
    return np.asarray(cv2.min(rows, most)).reshape(planes.shape)  # type: ignore[call-overload]  # it does take numbers


def _weight(red: Float32, green: Float32, blue: Float32) -> Float32:
    """Contrast times saturation, never 0."""
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, as OpenCV's
    contrast = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    mean = (red + green + blue) / 3
    saturation = np.sqrt((red - mean) ** 2 + (green - mean) ** 2 + (blue - mean) ** 2)
    return np.asarray(contrast * saturation + np.float32(1e-12))


def _blended(stack: Float32, levels: int, below: Float32 | None = None) -> Float32:
    """A stack blended over so many levels, on top of the coarsest where that is known already; (3, h, w)."""
    if levels == 0:
        return np.asarray((stack[:, :3] * stack[:, 3:]).sum(axis=0)) if below is None else below
    height, width = stack.shape[2:]
    coarser = _down(stack)
    blended = _up(_blended(coarser, levels - 1, below), height, width)
    for exposure, small in zip(stack, coarser, strict=True):
        blended += (exposure[:3] - _up(small[:3], height, width)) * exposure[3]
    return blended


def _down(planes: Float32) -> Float32:
    """(..., h, w) at half the size."""
    height, width = planes.shape[-2:]
    small = np.empty((*planes.shape[:-2], (height + 1) // 2, (width + 1) // 2), np.float32)
    for place in np.ndindex(planes.shape[:-2]):
        cv2.pyrDown(planes[place], dst=small[place])
    return small


def _up(planes: Float32, height: int, width: int) -> Float32:
    """(..., h, w) at twice the size, or one pixel less."""
    large = np.empty((*planes.shape[:-2], height, width), np.float32)
    for place in np.ndindex(planes.shape[:-2]):
        cv2.pyrUp(planes[place], dst=large[place], dstsize=(width, height))
    return large
