"""The Bayer mosaic of a camera: its geometry, its levels, its colour, and the two ways to feed it to a network.

A packed mosaic has the four planes B, Gr, R, Gb, in that order, of the 2x2 block

        R  Gr
        Gb B

which is how raw_to_tonemappedHDR packs (its code calls the green of the red row Gb, and the other one Gr).
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from hdrcli.color import BT709, Float32, Float64, luminance, rgb_to_xyz
from hdrcli.image import Metadata

_PLACES = ((1, 1), (0, 1), (0, 0), (1, 0))  # (row, column) in the 2x2 block of each plane

MIDDLE_GREY = 0.18
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

    counts: (H, W) float32 sensor counts, not rotated.
    black: (2, 2) black level by position in the block. white: the count that stands for 1.0.
    balance: white-balance multipliers of R, G, B with G = 1.
    matrix: 3x3, white-balanced camera RGB to linear BT.709; its rows sum to 1, so white stays white.
    crop: (top, left, height, width) of the picture inside `counts`, before rotation.
    orientation: EXIF orientation, 1 to 8, still to be applied. bits: nominal bit depth.
    clip: (2, 2) count at which each position of the block clips; None where that is `white` for all.
    pixel_aspect: width of a pixel over its height, still to be applied.
    """

    counts: Float32
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


def pack(mosaic: Float32) -> Float32:
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
    gain = np.float32(anchor(planes) * 2.0**ev)
    return planes * gain


def camera_linear(mosaic: Mosaic) -> Float32:
    """`canonical` before the anchor: (4, h, w) in parts of the sensor's white level."""
    levels = parts_of_white(mosaic)
    blue, gr, red, gb = levels
    green, difference = (gr + gb) / 2, gr - gb
    clipped_blue, clipped_gr, clipped_red, clipped_gb = clipped(levels, mosaic)
    clip = [clipped_red, np.maximum(clipped_gr, clipped_gb), clipped_blue]
    red, blue = red * np.float32(mosaic.balance[0]), blue * np.float32(mosaic.balance[2])
    green = np.where(clip[1] > 0, np.maximum(green, green + clip[1] * ((red + blue) / 2 - green)), green)
    difference = difference * (1 - clip[1])
    all_clipped = np.minimum.reduce(clip)
    rgb = np.stack([red, green, blue])
    rgb += all_clipped * (rgb.max(axis=0) - rgb)
    red, green, blue = np.tensordot(mosaic.matrix.astype(np.float32), rgb, axes=1)
    return np.stack([blue, green + difference / 2, red, green - difference / 2]).astype(np.float32)


def anchor(planes: Float32) -> float:
    """The gain that puts the geometric mean luminance of (4, h, w) linear planes at 0.18.

    Luminance is box-averaged over 8x8 sensor pixels first, so that noise does not pull the logarithm down.
    """
    blue, gr, red, gb = planes
    light = luminance(np.stack([red, (gr + gb) / 2, blue], axis=-1))
    height, width = light.shape
    small = cv2.resize(light, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA)
    return float(MIDDLE_GREY / np.exp(np.mean(np.log(np.maximum(small, _DARKEST)))))


def parts_of_white(mosaic: Mosaic) -> Float32:
    """(4, h, w) planes with the black level at 0 and the white level at 1, as the sensor saw them."""
    black = _by_plane(mosaic.black)
    return (pack(mosaic.counts) - black) / (np.float32(mosaic.white) - black)


def clipped(levels: Float32, mosaic: Mosaic) -> Float32:
    """How far each of `parts_of_white` is clipped: 0 below, 1 from the clipping level on, a short ramp between."""
    limit = np.full((2, 2), mosaic.white, np.float32) if mosaic.clip is None else mosaic.clip
    black = _by_plane(mosaic.black)
    share = levels * ((np.float32(mosaic.white) - black) / (_by_plane(limit) - black))
    weight: Float32 = np.clip((share - np.float32(0.96)) / np.float32(_CLIPPED - 0.96), 0, 1)
    return weight


def _by_plane(block: Float32) -> Float32:
    """(2, 2) values by position in the block to (4, 1, 1) values by plane."""
    return np.array([block[place] for place in _PLACES], np.float32)[:, None, None]


# ------------------------------------------------------------------------------------------ geometry


def align(counts: Float32, pattern: str, crop: tuple[int, int, int, int]) -> tuple[Float32, tuple[int, int, int, int]]:
    """Brings any of the four Bayer phases and odd sides to R at (0, 0) and even sides, by reflection.

    counts: (H, W). pattern: colours of its top-left 2x2 block, row by row. crop: of the picture, moved along.
    Nothing is cut off: at most one row and one column are added at each side.
    """
    top, left = divmod(pattern.index("R"), 2)
    height, width = counts.shape
    padded = np.pad(counts, ((top, (height + top) % 2), (left, (width + left) % 2)), mode="reflect")
    return padded, (crop[0] + top, crop[1] + left, crop[2], crop[3])


def upright(picture: Float32, mosaic: Mosaic) -> Float32:
    """Cuts the picture out of a developed (2h, 2w, 3) frame, makes its pixels square and turns it upright."""
    top, left, height, width = mosaic.crop
    framed = picture[top : top + height, left : left + width]
    if mosaic.pixel_aspect != 1:
        stretched = round(width * max(mosaic.pixel_aspect, 1)), round(height / min(mosaic.pixel_aspect, 1))
        framed = np.asarray(cv2.resize(framed, stretched, interpolation=cv2.INTER_LINEAR), np.float32)
    exchange, reverse_rows, reverse_columns = _TURNS[mosaic.orientation]
    turned = framed.swapaxes(0, 1) if exchange else framed
    return np.ascontiguousarray(turned[:: -1 if reverse_rows else 1, :: -1 if reverse_columns else 1])


# ------------------------------------------------------------------------------------------ levels and colour


def clip_levels(counts: Float32, black: Float32, white: float) -> Float32:
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
    levels = parts_of_white(mosaic)
    blue, gr, red, gb = levels
    worst = clipped(levels, mosaic).max(axis=0)
    size = max(red.shape[1] // 4, 1), max(red.shape[0] // 4, 1)
    red, green, blue, worst = (
        cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (red, (gr + gb) / 2, blue, worst)
    )
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
    levels = parts_of_white(mosaic)
    blue, gr, red, gb = levels
    scale = 64 / max(red.shape)
    size = max(round(red.shape[1] * scale), 1), max(round(red.shape[0] * scale), 1)
    planes = (red * mosaic.balance[0], (gr + gb) / 2, blue * mosaic.balance[2], clipped(levels, mosaic).max(axis=0))
    red, green, blue, worst = (
        cv2.resize(np.asarray(plane, np.float32), size, interpolation=cv2.INTER_AREA) for plane in planes
    )
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
