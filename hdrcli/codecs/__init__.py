"""Picture files in and out: one file per format, one table of them; read by content, written by name.

Camera raw files are not pictures yet; see `hdrcli.raw`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol, cast

from hdrcli import files
from hdrcli.codecs._sniff import sniff, unreadable
from hdrcli.errors import MissingExtraError, ReadError, UsageError, WriteError
from hdrcli.image import Image, Transfer


class Format(NamedTuple):
    """One file format."""

    suffixes: tuple[str, ...]  # the first is the one to write
    module: str  # the file in codecs/ that reads and writes it, imported on first use
    holds: Transfer  # what its pixel numbers mostly mean
    depth: int  # bits per channel that are written, unless WriteOptions say otherwise
    extra: str = ""  # the pip extra that brings its library, "" when the library is always there
    writes: bool = True
    light: bool = False  # whether linear light can be written too: by a gain map, as floats or in PQ


FORMATS: dict[str, Format] = {
    "jpg": Format((".jpg", ".jpeg", ".jpe", ".jfif"), "jpg", Transfer.SRGB, 8, light=True),
    "png": Format((".png",), "png", Transfer.SRGB, 8, light=True),
    "tif": Format((".tif", ".tiff"), "tif", Transfer.SRGB, 8, light=True),
    "webp": Format((".webp",), "webp", Transfer.SRGB, 8),
    "avif": Format((".avif",), "avif", Transfer.SRGB, 8, extra="codecs", light=True),
    "jxl": Format((".jxl",), "jxl", Transfer.SRGB, 8, extra="codecs", light=True),
    "heic": Format((".heic", ".heif", ".hif"), "heic", Transfer.SRGB, 8, extra="heif", writes=False),
    "bmp": Format((".bmp", ".dib"), "bmp", Transfer.SRGB, 8, writes=False),
    "exr": Format((".exr",), "exr", Transfer.LINEAR, 16),
    "hdr": Format((".hdr", ".rgbe", ".pic"), "hdr", Transfer.LINEAR, 8),
}


ULTRA_HDR = "uhdr"  # of outputs: light and the finished picture together, in a JPEG file


@dataclass(frozen=True)
class WriteOptions:
    """How to write; a format takes what it knows."""

    quality: int = 95  # JPEG, WebP, AVIF and finished JPEG XL: 1 to 100
    bits: int = 8  # finished pictures in PNG and TIFF: 8 or 16
    half: bool = True  # EXR and light in JPEG XL: 16-bit floats, else 32-bit
    pq: bool = False  # light in JPEG XL: 16 bits in PQ and BT.2020, else floats
    compression: str = "piz"  # EXR: none, rle, zips, zip, piz, pxr24, b44, b44a, dwaa, dwab
    metadata: bool = True  # EXIF, XMP, software and provenance; colour information is always written
    base: Image | None = None  # Ultra HDR JPEG: the finished picture that every viewer shows
    map_step: int = 2  # its gain map: base pixels a side for each pixel of the map, 1 to 4
    map_channels: int = 3  # its gain map: 3, or 1 for a single gain of luminance
    map_xmp: bool = False  # its gain map: also described in the older way, hdrgm XMP


DEFAULTS = WriteOptions()


class Codec(Protocol):
    """What each module of this package offers."""

    def read(self, data: bytes, name: str) -> Image: ...

    def write(self, image: Image, path: Path, options: WriteOptions) -> list[str]: ...


def format_of(name: str | Path) -> str | None:
    """The format that a file's suffix stands for, or None."""
    suffix = PurePath(str(name)).suffix.lower()
    return next((format for format, row in FORMATS.items() if suffix in row.suffixes), None)


def module_for(name: str | Path) -> str:
    """The module that reads files with that suffix, JPEG's for unknown ones."""
    return f"{__name__}.{FORMATS[format_of(name) or 'jpg'].module}"


def codec_of(output: str) -> str:
    """The row of FORMATS that writes outputs of a format: of a row, or ULTRA_HDR."""
    return "jpg" if output == ULTRA_HDR else output


def extension(output: str) -> str:
    """The ending of outputs of a format, with the dot."""
    return FORMATS[codec_of(output)].suffixes[0]


def read(source: Path | bytes, *, name: str = "") -> Image:
    """Reads a picture, from a file or from the bytes of one, deciding by its content what it is.

    Pixels come the right way up, in BT.709 primaries: sRGB-encoded in [0, 1] from display files, linear light from
    EXR, Radiance and floating-point TIFF. An alpha channel is dropped and the colours behind it kept as stored;
    `meta.notes` says so, and names whatever else had to be done or guessed.
    Raises ReadError for anything that is not a whole, readable picture.
    """
    name = name or (source.name if isinstance(source, Path) else "-")
    data = source if isinstance(source, bytes) else files.content(source)
    format = sniff(data)
    if format is None:
        raise unreadable(data, name, FORMATS)
    image = _codec(format).read(data, name)
    return replace(image, meta=replace(image.meta, source=name))


def read_encoded(source: Path | bytes, *, name: str = "") -> Image:
    """`read` for those who want a finished picture; ReadError where the file holds linear light."""
    return require_encoded(read(source, name=name))


def require_encoded(image: Image) -> Image:
    """The picture itself, unless it is linear light already."""
    if image.transfer == Transfer.LINEAR:
        raise ReadError(
            f"{image.meta.source or 'the picture'} is already HDR: its values are linear light",
            hint="expand takes ordinary pictures, such as JPEG or 8-bit PNG",
        )
    return image


def write(image: Image, path: Path, format: str, options: WriteOptions = DEFAULTS) -> list[str]:
    """Writes exactly `path`, whatever its suffix, and returns what the user should know: clipped values, counted.

    Raises WrongStateError when the pixels are not what the format holds, UsageError for a format that is not there or
    an option it does not know, WriteError when the file cannot be written.
    """
    row = FORMATS.get(format)
    if row is None or not row.writes:
        raise UsageError(f"hdr does not write {format!r} files", hint=f"formats: {_listed(_writable())}")
    if not (row.light and image.transfer == Transfer.LINEAR):
        image.check(row.holds, f"the {format} writer")
    try:
        return _codec(format).write(image, path, options)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written: {error.strerror or error}", hint="check the folder, its permissions and space"
        ) from error


def _codec(format: str) -> Codec:
    row = FORMATS[format]
    try:
        return cast(Codec, import_module(f"{__name__}.{row.module}"))
    except ImportError as error:
        if not row.extra:
            raise
        raise MissingExtraError(
            f"{format} files need the package {error.name}", hint=f"pip install 'hdrcli[{row.extra}]'"
        ) from error


def _writable() -> Iterable[str]:
    return (format for format, row in FORMATS.items() if row.writes)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
