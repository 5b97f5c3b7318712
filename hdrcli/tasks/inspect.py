"""inspect: what is in a picture, measured and read, without changing it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from PIL import Image as Pillow
from PIL.ExifTags import IFD, TAGS

from hdrcli import codecs, raw
from hdrcli.color import CLIPPED_CODE, Float32, luminance
from hdrcli.errors import HdrError
from hdrcli.image import Image, Metadata, Transfer
from hdrcli.isolation import Decoders
from hdrcli.rawtypes import SUFFIXES
from hdrcli.sensor import Mosaic, clipped, parts_of_white

_TAILS = (0.1, 99.9)  # percentiles of luminance that the dynamic range spans

_GROUP = 32  # files between two looks at who is listening

_EXIF = ("Make", "Model", "LensModel", "DateTimeOriginal", "ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known of one file.

    format: by the file's name. kind: "sRGB-encoded", "linear light" or "Bayer mosaic".
    bits: per channel in the file, 0 where it says none.
    stops: log2 of the ratio of the 99.9th to the 0.1th percentile of luminance above zero, None for a black picture.
    clipped: share of pixels with a channel at the upper end, in [0, 1]; None for linear light, which has no end.
    peak: the largest linear value, in parts of the clipping level (of diffuse white for linear light).
    details: what the file says of its making, by name.
    """

    source: str = ""
    format: str = ""
    kind: str = ""
    width: int = 0
    height: int = 0
    bits: int = 0
    stops: float | None = None
    clipped: float | None = None
    peak: float | None = None
    profile: str = ""
    details: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""


def inspect(sources: Sequence[Path], decoders: Decoders, workers: int = 1) -> Iterator[Report]:
    """Reports on files in their order, `workers` at a time; a file that cannot be read gives a report of its error."""
    with Parallel(n_jobs=workers, backend="threading") as pool:
        for first in range(0, len(sources), _GROUP):
            yield from pool(delayed(inspect_file)(source, decoders) for source in sources[first : first + _GROUP])


def inspect_file(source: Path, decoders: Decoders) -> Report:
    """Reports on one file, under the path that was given; it is read and measured in a decoder process."""
    try:
        report = decoders.read(_described_raw if source.suffix.lower() in SUFFIXES else _described, source)
    except HdrError as error:
        report = Report(error=error.message, hint=error.hint)
    except MemoryError:
        report = Report(error=f"{source.name}: there is not enough memory for it", hint="give fewer files at a time")
    return replace(report, source=str(source), format=codecs.format_of(source) or source.suffix[1:].lower())


def _described(source: Path | bytes, *, name: str) -> Report:
    return describe_image(codecs.read(source, name=name))


def _described_raw(source: Path | bytes, *, name: str) -> Report:
    return describe_mosaic(raw.read(source, name=name))


def describe_image(image: Image) -> Report:
    """Reports on a picture that was read from a file."""
    linear = image.to(Transfer.LINEAR).pixels
    encoded = image.transfer == Transfer.SRGB
    return Report(
        kind="sRGB-encoded" if encoded else "linear light",
        width=image.width,
        height=image.height,
        bits=image.meta.bits,
        stops=dynamic_range(luminance(linear)),
        clipped=clipped_share(image.pixels) if encoded else None,
        peak=float(linear.max()),
        profile=image.meta.profile or image.primaries.name,
        details=_details(image.meta),
        notes=image.meta.notes,
    )


def describe_mosaic(mosaic: Mosaic) -> Report:
    """Reports on a RAW file; width and height are those of the upright picture."""
    _, _, height, width = mosaic.crop
    if mosaic.orientation > 4:
        height, width = width, height
    light = parts_of_white(mosaic)
    levels = {
        "black level": " ".join(f"{level:g}" for level in np.unique(mosaic.black)),
        "white level": f"{mosaic.white:g}",
        "white balance": " ".join(f"{gain:.3f}" for gain in mosaic.balance),
    }
    return Report(
        kind="Bayer mosaic",
        width=width,
        height=height,
        bits=mosaic.bits,
        stops=dynamic_range(light),
        clipped=float(np.mean(clipped(light, mosaic) == 1)),
        peak=float(light.max()),
        details={**_details(mosaic.meta), **levels},
        notes=mosaic.meta.notes,
    )


def clipped_share(encoded: Float32) -> float:
    """Share of the pixels of an sRGB-encoded (H, W, 3) picture with at least one clipped channel."""
    red, green, blue = np.moveaxis(encoded, 2, 0)
    return float(np.mean(np.maximum(np.maximum(red, green), blue) >= CLIPPED_CODE))  # ten times faster than max(axis=2)


def dynamic_range(light: Float32) -> float | None:
    """Stops between the 0.1th and the 99.9th percentile of the positive values; None where there is none."""
    positive = light[light > 0]
    if positive.size == 0:
        return None
    low, high = np.percentile(positive, _TAILS)
    return float(np.log2(high / low))


def _details(meta: Metadata) -> dict[str, str]:
    exif = Pillow.Exif()
    exif.load(meta.exif)
    tags: dict[int, Any] = {**exif, **exif.get_ifd(IFD.Exif)}
    named = {TAGS.get(tag, ""): value for tag, value in tags.items()}
    read = {name: f"{named[name]}".strip("\0 ") for name in _EXIF if name in named}
    return {**read, **meta.extra}
