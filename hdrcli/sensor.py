"""The Bayer mosaic of a camera: its geometry, its levels, its colour, and the two ways to feed it to a network.

A packed mosaic has the four planes B, Gr, R, Gb, in that order, of the 2x2 block

        R  Gr
        Gb B

which is how raw_to_tonemappedHDR packs (its code calls the green of the red row Gb, and the other one Gr).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hdrcli.color import BT709, LUMINANCE_709, Float32, Float64, Floats, rgb_to_xyz
from hdrcli.image import Metadata, Planes

Counts = NDArray[Any]  # uint16 or float32

_PLACES = ((1, 1), (0, 1), (0, 0), (1, 0))  # (row, column) in the 2x2 block of each plane

MIDDLE_GREY = 0.18
_ROWS = 64  # of packed pixels that are worked on at a time, to stay within the processor's cache
_DARKEST = 1e-4  # floor of the luminance in the anchor's logarithm, in parts of the white level
_CLIPPED = 0.985  # share of the clipping level from which a channel counts as clipped

_PARTS = 0.2 * 1.01 ** np.arange(212)  # edges of the bins in which a clipping peak is sought, in parts of white

# Whether rows and columns are exchanged, then rows and columns reversed, by EXIF orientation.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True, slots=True)
class Mosaic:
    """What a sensor recorded, phase-shifted so that R is at (0, 0) and both sides are even.

    counts: (H, W) sensor counts, not rotated.
    black: (2, 2) black level by position in the block. white: the count that stands for 1.0.
    balance: white-balance multipliers of R, G, B with G = 1.
    matrix: 3x3, white-balanced camera RGB to linear BT.709; its rows sum to 1, so white stays white.
    crop: (top, left, height, width) of the picture inside `counts`, before rotation.
    orientation: EXIF orientation, 1 to 8, still to be applied. bits: nominal bit depth.
    clip: (2, 2) count at which each position of the block clips; None where that is `white` for all.
    pixel_aspect: width of a pixel over its height, still to be applied.
    """

    counts: Counts
    black: Float32
    white: float
    balance: Float64
    matrix: Float64
    crop: tuple[int, int, int, int]
    orientation: int = 1
    bits: int = 10
    meta: Metadata = field(default_factory=Metadata)
    clip: Float32 | None = None
    pixel_aspect: float = 1.0


def pack(mosaic: Counts) -> Counts:
    """(H, W) mosaic with R at (0, 0) to (4, H/2, W/2) planes B, Gr, R, Gb."""
    return np.ascontiguousarray(np.stack([mosaic[row::2, column::2] for row, column in _PLACES]))


def unpack(planes: Float32) -> Float32:
    """(4, h, w) planes B, Gr, R, Gb to the (2h, 2w) mosaic; the inverse of `pack`."""
    _, height, width = planes.shape
    mosaic = np.empty((2 * height, 2 * width), planes.dtype)
    for plane, (row, column) in zip(planes, _PLACES, strict=True):
        mosaic[row::2, column::2] = plane
    return mosaic


def native(mosaic: Mosaic, ev: float = 0.0) -> Float32:
    """The feed of raw_to_tonemappedHDR's own weights: 10-bit counts / 1020, no black level, no white balance.

    Returns (4, h, w) float32, about [0, 1]; other bit depths are brought to the 10-bit scale first.
    """
    to_ten_bits = 1023 / (2**mosaic.bits - 1)
    return pack(mosaic.counts) * np.float32(2.0**ev * to_ten_bits / 1020)


def canonical(mosaic: Mosaic, ev: float = 0.0) -> Float32:
    """The same virtual sensor for every camera: linear BT.709 at Bayer sites, a mid-grey scene at 0.18.

    Black level and white level removed, white balance and the camera matrix applied per 2x2 block (the difference of
    the two greens is kept), clipped highlights drawn to neutral, everything scaled by the anchor of the whole picture
    and by 2^ev. Returns (4, h, w) float32 planes B, Gr, R, Gb; values may be negative (noise) and above 1.
    """
    planes = camera_linear(mosaic)
    return planes * np.float32(anchor(planes) * 2.0**ev)


def camera_linear(mosaic: Mosaic) -> Float32:
    """`canonical` before the anchor: (4, h, w) in parts of the sensor's white level."""
    blue, gr, red, gb = levels = parts_of_white(mosaic)
    clipped_blue, clipped_gr, clipped_red, clipped_gb = clipped(levels, mosaic)
    rgb = np.stack([red * np.float32(mosaic.balance[0]), (gr + gb) / 2, blue * np.float32(mosaic.balance[2])])
    difference = gr - gb
    clipped_green = np.maximum(clipped_gr, clipped_gb)
    if clipped_green.any():
        red, green, blue = rgb
        np.maximum(green, green + clipped_green * ((red + blue) / 2 - green), out=green, where=clipped_green > 0)
        difference *= 1 - clipped_green
        all_clipped = np.minimum.reduce([clipped_red, clipped_green, clipped_blue])
        rgb += all_clipped * (rgb.max(axis=0) - rgb)
    red, green, blue = np.tensordot(mosaic.matrix.astype(np.float32), rgb, axes=1)
    difference /= 2
    return np.stack([blue, green + difference, red, green - difference])


class Packed:
    """The (4, h, w) planes that a function such as `camera_linear` makes of a mosaic, made window by window."""

    def __init__(self, mosaic: Mosaic, planes_of: Callable[[Mosaic], Float32]) -> None:
        self._mosaic, self._planes_of = mosaic, planes_of
        height, width = mosaic.counts.shape
        self.shape = (4, height // 2, width // 2)

    def __getitem__(self, window: tuple[slice, slice, slice]) -> Float32:
        planes, rows, columns = window
        counts = self._mosaic.counts[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop]
        made = np.empty((4, *(side // 2 for side in counts.shape)), np.float32)
        for top in range(0, made.shape[1], _ROWS):
            band = replace(self._mosaic, counts=counts[2 * top : 2 * (top + _ROWS)])
            made[:, top : top + _ROWS] = self._planes_of(band)
        return made[planes]


def anchor(planes: Planes) -> float:
    """The gain that puts the geometric mean luminance of (4, h, w) linear planes at 0.18.

    Luminance is box-averaged over 8x8 sensor pixels first, so that noise does not pull the logarithm down.
    """
    height, width = planes.shape[1:]
    light = np.empty((height, width), np.float32)
    for top in range(0, height, _ROWS):
        band = slice(top, min(top + _ROWS, height))
        blue, gr, red, gb = planes[:4, band, 0:width]
        light[band] = sum(
            weight * plane for weight, plane in zip(LUMINANCE_709, (red, (gr + gb) / 2, blue), strict=True)
        )
    small = cv2.resize(light, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA)
    return float(MIDDLE_GREY / np.exp(np.mean(np.log(np.maximum(small, _DARKEST)))))


def parts_of_white(mosaic: Mosaic) -> Float32:
    """(4, h, w) planes with the black level at 0 and the white level at 1, as the sensor saw them."""
    return np.stack([_part_of_white(mosaic, place) for place in _PLACES])


def clipped(levels: Float32, mosaic: Mosaic) -> Float32:
    """How far each of `parts_of_white` is clipped: 0 below, 1 from the clipping level on, a short ramp between."""
    return np.stack([_clipped(level, mosaic, place) for level, place in zip(levels, _PLACES, strict=True)])


def _part_of_white(mosaic: Mosaic, place: tuple[int, int]) -> Float32:
    row, column = place
    part = mosaic.counts[row::2, column::2].astype(np.float32)
    part -= mosaic.black[place]
    part /= np.float32(mosaic.white) - mosaic.black[place]
    return part


def _clipped(level: Float32, mosaic: Mosaic, place: tuple[int, int]) -> Float32:
    white, black = np.float32(mosaic.white), mosaic.black[place]
    limit = white if mosaic.clip is None else mosaic.clip[place]
    share: Float32 = level * ((white - black) / (limit - black))
    share -= np.float32(0.96)
    share /= np.float32(_CLIPPED - 0.96)
    np.clip(share, 0, 1, out=share)
    return share


def _shrunk(mosaic: Mosaic, width: int, height: int) -> Float32:
    """(4, height, width): red, green, blue in parts of white and how far the worst of them is clipped, averaged."""
    small, worst = [], np.zeros((1, 1), np.float32)
    for place in _PLACES:
        level = _part_of_white(mosaic, place)
        worst = np.maximum(worst, _clipped(level, mosaic, place))
        small.append(cv2.resize(level, (width, height), interpolation=cv2.INTER_AREA))
    blue, gr, red, gb = small
    return np.stack([red, (gr + gb) / 2, blue, cv2.resize(worst, (width, height), interpolation=cv2.INTER_AREA)])


# ------------------------------------------------------------------------------------------ geometry


def align(counts: Counts, pattern: str, crop: tuple[int, int, int, int]) -> tuple[Counts, tuple[int, int, int, int]]:
    """Brings any of the four Bayer phases and odd sides to R at (0, 0) and even sides, by reflection.

    counts: (H, W). pattern: colours of its top-left 2x2 block, row by row. crop: of the picture, moved along.
    Nothing is cut off: at most one row and one column are added at each side.
    """
    top, left = divmod(pattern.index("R"), 2)
    height, width = counts.shape
    added = ((top, (height + top) % 2), (left, (width + left) % 2))
    padded = np.pad(counts, added, mode="reflect") if np.any(added) else counts
    return padded, (crop[0] + top, crop[1] + left, crop[2], crop[3])


def upright(picture: Floats, mosaic: Mosaic) -> Floats:
    """Cuts the picture out of a developed (2h, 2w, 3) frame, makes its pixels square and turns it upright; a view."""
    top, left, height, width = mosaic.crop
    framed = picture[top : top + height, left : left + width]
    if mosaic.pixel_aspect != 1:
        stretched = round(width * max(mosaic.pixel_aspect, 1)), round(height / min(mosaic.pixel_aspect, 1))
        single = framed.astype(np.float32, copy=False)
        framed = np.asarray(cv2.resize(single, stretched, interpolation=cv2.INTER_LINEAR), np.float32)
    exchange, reverse_rows, reverse_columns = _TURNS[mosaic.orientation]
    turned = framed.swapaxes(0, 1) if exchange else framed
    return turned[:: -1 if reverse_rows else 1, :: -1 if reverse_columns else 1]


# ------------------------------------------------------------------------------------------ levels and colour


def clip_levels(counts: Counts, black: Float32, white: float) -> Float32:
    """The (2, 2) count at which each position of the block clips, `white` where the picture does not show another.

    A clipped channel ends in a peak: at least one pixel in 20,000, six times as dense as the levels below it, with
    next to nothing above. Cameras that scale or filter their counts clip below the white level they declare.
    """
    levels = np.full((2, 2), white, np.float32)
    for row, column in np.ndindex(2, 2):
        site = counts[row::2, column::2]
        span = white - float(black[row, column])
        histogram = np.bincount(np.maximum(site, 0).ravel().astype(np.int64))
        ends = np.searchsorted(np.arange(len(histogram)), black[row, column] + _PARTS * span)
        below = np.concatenate([[0], np.cumsum(histogram)])[ends]
        peak = _last_peak(np.diff(below), site.size, site.size - int(below[-1]))
        if peak is not None:
            levels[row, column] = black[row, column] + peak * span
    return levels


def _last_peak(histogram: NDArray[np.int64], size: int, above: int) -> float | None:
    """The level, in parts of white, of a peak two bins wide that ends the histogram over _PARTS of `size` pixels."""
    for i in range(len(histogram) - 2, 7, -1):
        mass = histogram[i] + histogram[i + 1]
        alone = above + histogram[i + 2 :].sum() <= 0.3 * mass
        if alone and mass >= max(20, size / 20_000, 12 * histogram[i - 7 : i - 1].mean()):
            return float(_PARTS[i + 1])
    return None


def grey_world(mosaic: Mosaic) -> Float64 | None:
    """White-balance multipliers of R, G, B, G = 1, that make the unclipped, not too dark part of a picture grey.

    Logarithmic ratios of 8x8-pixel means, weighted by brightness, averaged over what lies within one stop and then
    within half a stop of their centre, so that one large coloured surface does not decide alone. None where nothing
    can be judged.
    """
    height, width = mosaic.counts.shape
    red, green, blue, worst = _shrunk(mosaic, max(width // 8, 1), max(height // 8, 1))
    usable = (worst == 0) & (np.minimum(np.minimum(red, green), blue) > 0.003)
    if usable.sum() < 16:
        return None
    weights = green[usable]
    ratios = np.log2(np.stack([red, blue])[:, usable] / weights)
    centre = np.median(ratios, axis=1)
    for radius in (1.0, 1.0, 1.0, 0.5, 0.5, 0.5):
        near = (np.abs(ratios - centre[:, None]) < radius).all(axis=0)
        if near.any():
            centre = np.average(ratios[:, near], axis=1, weights=weights[near])
    return np.array([2.0 ** -centre[0], 1.0, 2.0 ** -centre[1]])


def surface_balance(mosaic: Mosaic) -> Float64 | None:
    """White-balance multipliers of R, G, B, G = 1, that make a large, warm, almost grey surface grey; None without one.

    Such a surface, a wall or the table under a chart in lamp light, has one colour over 45 % or more of the picture: it
    is the mean of what lies within 0.12 stops of it, and the balance of `mosaic` leaves it warm by 0.2 to 0.45 stops.
    """
    height, width = (side // 2 for side in mosaic.counts.shape)
    scale = 64 / max(height, width)
    red, green, blue, worst = _shrunk(mosaic, max(round(width * scale), 1), max(round(height * scale), 1))
    red *= np.float32(mosaic.balance[0])
    blue *= np.float32(mosaic.balance[2])
    usable = (worst == 0) & (np.minimum(np.minimum(red, green), blue) > 0.003)
    if not usable.any():
        return None
    casts = np.log2(np.stack([red, blue])[:, usable] / green[usable])
    reds, blues = casts
    counts, *edges = np.histogram2d(reds, blues, bins=40, range=[[-1.0, 1.0], [-1.0, 1.0]])
    peak = np.unravel_index(cv2.GaussianBlur(counts, (0, 0), 1.2).argmax(), counts.shape)
    centre = np.array([edge[place] for edge, place in zip(edges, peak, strict=True)]) + 0.025
    for _ in range(5):
        near = np.hypot(*(casts - centre[:, None])) < 0.12
        if near.any():
            centre = casts[:, near].mean(axis=1)
    warm = centre[0] > 0 > centre[1] and 0.2 <= np.hypot(*centre) <= 0.45
    if not warm or near.sum() < 0.45 * usable.size:
        return None
    return np.asarray(mosaic.balance * 2.0 ** -np.array([centre[0], 0.0, centre[1]]), np.float64)


def from_xyz(xyz_to_camera: Float64) -> Float64:
    """The matrix of a Mosaic from the published 3x3 matrix CIE XYZ (D65) to camera RGB, as dcraw and LibRaw derive it.

    Raises numpy.linalg.LinAlgError for a matrix that has no inverse.
    """
    to_camera = xyz_to_camera @ rgb_to_xyz(BT709)
    return np.linalg.inv(to_camera / to_camera.sum(axis=1, keepdims=True))
