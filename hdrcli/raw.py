"""A camera's RAW file to a Mosaic, through LibRaw.

Whatever had to be guessed or repaired is said in the notes; a file that gives no usable picture is a ReadError.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import rawpy
from numpy.typing import NDArray

from hdrcli.codecs import _ifd, _shading, png
from hdrcli.codecs._rawexif import EXPOSURE_TIME, F_NUMBER, FOCAL_LENGTH, ISO, MAKE, collect, tiff_part
from hdrcli.codecs.dng import PATTERNS
from hdrcli.color import Float32, Float64
from hdrcli.errors import ReadError
from hdrcli.files import content
from hdrcli.image import Metadata
from hdrcli.libraw import RECOPY, opened
from hdrcli.rawtypes import SUFFIXES
from hdrcli.sensor import Counts, Mosaic, align, clip_levels, from_xyz, grey_world, surface_balance

__all__ = ["SUFFIXES", "TYPICAL_MATRIX", "Balance", "Feed", "read", "reader"]

Balance = Literal["camera", "as-shot", "auto", "daylight"]
Feed = Literal["canonical", "native"]

TYPICAL_MATRIX = np.array([[1.60, -0.45, -0.15], [-0.15, 1.50, -0.35], [0.02, -0.45, 1.43]])  # mean of seven cameras

_EXIF_ORIENTATION = {0: 1, 1: 2, 3: 3, 2: 4, 4: 5, 6: 6, 7: 7, 5: 8}  # by LibRaw's flip
_MARKESTEIJN_LEAST = 512  # LibRaw refuses its X-Trans interpolation below this side
_NEARLY_BALANCED = 0.5  # stops; some old cameras balance before they write
_SMALLEST_CROP = 0.55  # of a side; LibRaw's own limit for taking a crop seriously


def read(source: Path | bytes, *, name: str = "", balance: Balance = "camera", sensor: Feed = "canonical") -> Mosaic:
    """Reads a camera RAW file, or its bytes, as a Bayer mosaic with its levels, white balance and camera matrix.

    name: what to call the input in messages, its file name by default. balance: the camera's white balance, mended
    where a large surface shows a cast or exactly as shot, daylight, or an estimate from the picture; one that the file
    lacks is replaced, with a note. sensor: for "canonical", a DNG's
    map of its lens shading is applied; "native" leaves the counts as they are, and also takes a single-channel PNG, as
    the Zurich RAW to RGB data set stores mosaics (RGGB, 10-bit scale). Sensors that are not Bayer ones are demosaiced
    by LibRaw and sampled again. Raises ReadError.
    """
    data = source if isinstance(source, bytes) else content(source)
    label = name or ("-" if isinstance(source, bytes) else source.name)
    if not data:
        raise ReadError(f"{label} is empty", hint=RECOPY)
    is_png = data.startswith(b"\x89PNG")
    mosaic = _from_png(data, label, sensor) if is_png else _from_libraw(data, label, balance, sensor)
    return replace(mosaic, meta=replace(mosaic.meta, source=label))


def reader(balance: Balance, sensor: Feed) -> Callable[..., Mosaic]:
    """`read` with these settings; can be pickled."""
    return partial(read, balance=balance, sensor=sensor)


def _from_png(data: bytes, label: str, sensor: Feed) -> Mosaic:
    counts = png.stored(data, label)
    if counts.ndim != 2 or min(counts.shape) < 2:
        raise ReadError(f"{label} is a finished PNG picture, not a camera RAW file", hint="use hdr expand")
    if sensor != "native":
        raise ReadError(
            f"{label} is a PNG with one channel: a mosaic, or a finished grey picture",
            hint="develop a mosaic with --sensor native; a finished picture goes to hdr expand",
        )
    height, width = counts.shape
    padded, crop = align(counts.astype(np.float32), "RGGB", (0, 0, height, width))
    notes = (
        "a PNG mosaic: taken as RGGB on a 10-bit scale with black level 64",
        "the file has no white balance and no colour matrix; estimated and typical ones used",
    )
    mosaic = Mosaic(
        counts=padded,
        black=np.full((2, 2), 64, np.float32),
        white=1023.0,
        balance=np.ones(3),
        matrix=TYPICAL_MATRIX,
        crop=crop,
        bits=10,
        meta=Metadata(bits=10, notes=notes),
    )
    estimate = grey_world(mosaic)
    return mosaic if estimate is None else replace(mosaic, balance=estimate)


class _Frame(NamedTuple):
    """What the sensor gave. counts: (H, W). pattern: its colours, row by row. black: (2, 2) by position in it.

    white: the declared white level. crop: of the picture, as for a Mosaic. aspect: width of a pixel over its height.
    """

    counts: Counts
    pattern: str
    black: Float32
    white: float
    crop: tuple[int, int, int, int]
    aspect: float


def _from_libraw(data: bytes, label: str, balance: Balance, sensor: Feed) -> Mosaic:
    notes: list[str] = []
    tiff = tiff_part(data)
    with opened(data, label) as raw:
        orientation = _EXIF_ORIENTATION.get(raw.sizes.flip, 1)
        multipliers = _multipliers(raw, balance, notes)
        matrix = _matrix(raw, notes) if raw.num_colors == 3 else np.eye(3)
        exif = _exif(raw, tiff)
        pattern = _bayer_pattern(raw)
        frame = _recorded(raw, pattern) if pattern else _rendered(raw, multipliers)  # changes what LibRaw says
    shading = _shading.of_mosaic(tiff) if pattern and sensor == "canonical" else []
    factors = _shading.gains(shading, frame.counts.shape[:2]) if shading else None
    frame = _without_missing_rows(frame, label, notes)
    if pattern:
        frame = _with_plausible_levels(frame, _ifd.read(tiff), notes)
    clip, white = _clipping(frame, notes)
    _require_light(frame._replace(white=white), label, notes)
    if factors is not None:
        frame = _unshaded(frame._replace(white=white), factors)
    counts, crop = align(frame.counts, frame.pattern, frame.crop)
    shift = divmod(frame.pattern.index("R"), 2)
    bits = int(white).bit_length()
    mosaic = Mosaic(
        counts=counts,
        black=np.roll(frame.black, shift, axis=(0, 1)),
        white=white,
        balance=np.ones(3) if multipliers is None else multipliers,
        matrix=matrix,
        crop=crop,
        orientation=orientation,
        bits=bits,
        clip=np.roll(clip, shift, axis=(0, 1)),
        pixel_aspect=frame.aspect,
    )
    if multipliers is None:
        mosaic = _balanced_by_eye(mosaic, asked=balance == "auto", notes=notes)
    elif balance == "camera" and (mended := surface_balance(mosaic)) is not None:
        mosaic = replace(mosaic, balance=mended)
        notes.append("a warm surface that fills the picture was taken for grey; --wb as-shot leaves it warm")
    return replace(mosaic, meta=Metadata(exif=exif, bits=bits, notes=tuple(notes)))


# ------------------------------------------------------------------------------------------ what LibRaw says


def _bayer_pattern(raw: rawpy.RawPy) -> str:
    """Colours of the top-left 2x2 block of the picture area, row by row; empty for anything but a plain Bayer sensor.

    Fuji's diagonal Super CCD sensors have a 2x2 pattern too, but their picture area does not lie inside the frame.
    """
    sizes = raw.sizes
    whole = raw.raw_type == rawpy.RawType.Flat and raw.raw_image_visible.shape == (sizes.height, sizes.width)
    pattern = raw.raw_pattern if whole and raw.num_colors == 3 else None
    if pattern is None or pattern.shape != (2, 2):
        return ""
    letters = "".join(chr(raw.color_desc[colour]) for colour in _at_origin(pattern, sizes).ravel())
    return letters if letters in PATTERNS else ""


def _at_origin(pattern: NDArray[np.uint8], sizes: rawpy.ImageSizes) -> NDArray[np.uint8]:
    """The pattern of the whole frame as it starts at the picture area."""
    return np.roll(pattern, (-sizes.top_margin, -sizes.left_margin), axis=(0, 1))


def _recorded(raw: rawpy.RawPy, pattern: str) -> _Frame:
    sizes = raw.sizes
    assert raw.raw_pattern is not None
    colours = _at_origin(raw.raw_pattern, sizes)
    return _Frame(
        counts=raw.raw_image_visible.copy(),
        pattern=pattern,
        black=np.array(raw.black_level_per_channel, np.float32)[colours],
        white=float(raw.white_level),
        crop=_crop(sizes),
        aspect=sizes.pixel_aspect,
    )


def _crop(sizes: rawpy.ImageSizes) -> tuple[int, int, int, int]:
    """The maker's crop inside the picture area where there is a plausible one, otherwise the whole area."""
    top, left = sizes.crop_top_margin - sizes.top_margin, sizes.crop_left_margin - sizes.left_margin
    height, width = sizes.crop_height, sizes.crop_width
    inside = top >= 0 and left >= 0 and top + height <= sizes.height and left + width <= sizes.width
    if inside and height > _SMALLEST_CROP * sizes.height and width > _SMALLEST_CROP * sizes.width:
        return top, left, height, width
    return 0, 0, sizes.height, sizes.width


def _rendered(raw: rawpy.RawPy, multipliers: Float64 | None) -> _Frame:
    """Demosaiced by LibRaw and sampled again as RGGB, in camera colours before white balance, on a 16-bit scale.

    LibRaw interpolates balanced colours; the balance is taken out again, so that highlights are treated like any other
    camera's. Sensors with four colours (CMYG, RGBE) come out as BT.709 instead.
    """
    four = raw.num_colors > 3
    gains = np.ones(3) if multipliers is None or four else multipliers / multipliers.max()
    small = min(raw.sizes.height, raw.sizes.width) < _MARKESTEIJN_LEAST
    picture = raw.postprocess(
        demosaic_algorithm=rawpy.DemosaicAlgorithm.VNG if small else None,
        output_color=rawpy.ColorSpace.sRGB if four else rawpy.ColorSpace.raw,
        output_bps=16,
        gamma=(1, 1),
        no_auto_bright=True,
        adjust_maximum_thr=0.0,
        highlight_mode=rawpy.HighlightMode.Clip if four else rawpy.HighlightMode.Ignore,
        use_camera_wb=four,
        user_wb=None if four else [float(gain) for gain in gains[[0, 1, 2, 1]]],
        user_flip=0,
    )
    height, width, channels = picture.shape
    counts = np.empty((height, width), np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        counts[row::2, column::2] = picture[row::2, column::2, channel % channels] / gains[channel]
    whole = (height, width) == (raw.sizes.height, raw.sizes.width)
    crop = _crop(raw.sizes) if whole else (0, 0, height, width)
    return _Frame(counts, "RGGB", np.zeros((2, 2), np.float32), 65535.0, crop, 1.0)


def _multipliers(raw: rawpy.RawPy, balance: Balance, notes: list[str]) -> Float64 | None:
    """White-balance multipliers of R, G, B with G = 1; None where the picture itself has to tell."""
    camera, daylight = raw.camera_whitebalance, raw.daylight_whitebalance
    if raw.num_colors != 3 or (raw.raw_type == rawpy.RawType.Stack and _is_even(camera)):
        return np.ones(3)
    if balance == "auto" or (balance != "daylight" and _is_even(camera)):
        return None
    first, second, other = (daylight, camera, "camera") if balance == "daylight" else (camera, daylight, "daylight")
    if _is_balance(first):
        return _green_one(first)
    if _is_balance(second):
        notes.append(f"the file has no {balance} white balance; {other} white balance used")
        return _green_one(second)
    return None


def _is_even(values: Sequence[float]) -> bool:
    return values[0] == values[1] == values[2] > 0


def _is_balance(values: Sequence[float]) -> bool:
    """Whether these are multipliers of a sensor: no zeros, no NaN, and not merely 1, 1, 1."""
    plausible = all(math.isfinite(value) and value > 0 for value in values[:3])
    return plausible and not _is_even(values) and max(values[:3]) < 20 * min(values[:3])


def _green_one(values: Sequence[float]) -> Float64:
    return np.array(values[:3], np.float64) / values[1]


def _balanced_by_eye(mosaic: Mosaic, *, asked: bool, notes: list[str]) -> Mosaic:
    """White balance from the picture; unless `asked` for, counts that are nearly balanced already stay as they are."""
    estimate = grey_world(mosaic)
    if estimate is None or not (asked or np.abs(np.log2(estimate)).max() > _NEARLY_BALANCED):
        return mosaic
    if not asked:
        notes.append("the file has no white balance; it was estimated from the picture")
    return replace(mosaic, balance=estimate)


def _matrix(raw: rawpy.RawPy, notes: list[str]) -> Float64:
    """White-balanced camera RGB to linear BT.709, chosen as LibRaw chooses: the file's own, else its table's."""
    own, published = raw.color_matrix[:, :3].astype(np.float64), raw.rgb_xyz_matrix[:3].astype(np.float64)
    if own[0, 0] > 0.125 and np.all(np.abs(own.sum(axis=1) - 1) < 0.1):
        return np.asarray(own / own.sum(axis=1, keepdims=True), np.float64)
    if np.linalg.matrix_rank(published) == 3:
        return from_xyz(published)
    notes.append("the file has no colour matrix; that of a typical camera used, so colours are approximate")
    return TYPICAL_MATRIX


def _exif(raw: rawpy.RawPy, tiff: bytes) -> bytes:
    try:
        other = raw.other
    except (ValueError, OverflowError, OSError):  # a date that no calendar has
        return collect(tiff, {}, None, raw.lens.model)
    known = {
        EXPOSURE_TIME: other.shutter_speed,
        F_NUMBER: other.aperture,
        ISO: other.iso_speed,
        FOCAL_LENGTH: other.focal_length,
    }
    return collect(tiff, known, other.timestamp if other.timestamp.year > 1970 else None, raw.lens.model)


# ------------------------------------------------------------------------------------------ repairs and refusals


def _without_missing_rows(frame: _Frame, label: str, notes: list[str]) -> _Frame:
    """Leaves out rows at the end that a decoder filled with one value; ReadError where next to nothing remains."""
    counts, fill = frame.counts, frame.counts[-1, -1]
    height = len(counts)
    if _rows_at_end(counts, fill) < max(16, height // 50) or fill >= 0.98 * frame.white:
        return frame
    missing = _rows_at_end(counts[:, -32:], fill)  # with the rows that broke off
    if missing > 0.9 * height:
        raise ReadError(f"{label} holds no picture: nearly all of it is one value", hint=RECOPY)
    notes.append(f"the file is damaged: the last {missing} of {height} rows are missing and left out")
    top, left, crop_height, width = frame.crop
    crop = (top, left, min(crop_height, height - missing - top), width)
    return frame._replace(counts=counts[: height - missing], crop=crop)


def _rows_at_end(counts: Counts, fill: float) -> int:
    """How many rows at the end of (H, W) counts are nothing but `fill`."""
    other = np.flatnonzero((counts != fill).any(axis=1))
    return len(counts) - 1 - int(other[-1]) if len(other) else len(counts)


def _with_plausible_levels(frame: _Frame, main: _ifd.Directory, notes: list[str]) -> _Frame:
    """Mends black and white levels that cannot be right."""
    counts, black, white = frame.counts, frame.black, frame.white
    top = float(counts.max())
    if white == 65535 and top < 16384:
        white = next(float(2**bits - 1) for bits in (10, 12, 14) if top < 2**bits)
        notes.append(f"white level 65535 cannot be reached by these counts; {white:.0f} assumed")
    if not black.any() and MAKE in main and main[MAKE].text.upper() == "HUAWEI" and counts.min() >= 0.03 * white:
        black = np.full((2, 2), 64 * (white + 1) / 1024, np.float32)
        notes.append(f"the file says black level 0; {black[0, 0]:.0f} assumed, as this maker's phones have")
    if black.max() >= white:
        darkest = np.full((2, 2), np.percentile(counts, 0.1), np.float32)
        notes.append(
            f"black level {black.max():.0f} is above the white level {white:.0f}; the darkest count,"
            f" {darkest[0, 0]:.0f}, used instead"
        )
        black = darkest
    return frame._replace(black=black, white=white)


def _unshaded(frame: _Frame, factors: Float32) -> _Frame:
    """The frame with lens shading taken out: light above black times (H, W) factors, up to the white level."""
    height, width = frame.counts.shape
    black = np.tile(frame.black, (height // 2 + 1, width // 2 + 1))[:height, :width]
    lifted = black + (frame.counts - black) * factors[:height]
    return frame._replace(counts=np.minimum(lifted, np.maximum(frame.counts, np.float32(frame.white))))


def _clipping(frame: _Frame, notes: list[str]) -> tuple[Float32, float]:
    """The (2, 2) counts at which the frame clips, and its white level, raised where the picture goes well beyond it."""
    counts, black, white = frame.counts, frame.black, frame.white
    clip = clip_levels(counts, black, white)
    if clip.max() > 1.02 * white or np.mean(counts > 1.02 * white) > 0.005:
        top = float(counts.max())
        notes.append(f"the picture goes beyond the white level {white:.0f}; its highest count, {top:.0f}, used instead")
        clip, white = clip_levels(counts, black, top), top
    return np.minimum(clip, np.float32(white)), white


def _require_light(frame: _Frame, label: str, notes: list[str]) -> None:
    """ReadError for a black, white or even frame; a note for one without any structure."""
    counts = frame.counts
    if counts.min() == counts.max():
        raise ReadError(f"{label} holds no picture: all of it is one value", hint=RECOPY)
    if np.mean(counts <= frame.black.max()) > 0.9999:
        raise ReadError(f"{label} is black: nothing in it is above the black level", hint="there is nothing to develop")
    if np.mean(counts >= 0.98 * frame.white) > 0.999:
        raise ReadError(f"{label} is white: all of it is overexposed", hint="there is nothing to develop")
    rows = counts[:: max(counts.size // 1_000_000, 1)]
    likeness = np.corrcoef(rows[:, :-2].ravel(), rows[:, 2:].ravel())[0, 1]
    if likeness < 0.1 and rows.std() > 0.15 * frame.white:
        notes.append("this looks like noise, not like a picture; the file may be damaged")
