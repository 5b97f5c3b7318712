"""What a file is, by its first bytes."""

from collections.abc import Iterable
from pathlib import Path

from hdrcli.errors import ReadError

_PICTURES = (
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"II*\0", "tif"),
    (0, b"MM\0*", "tif"),
    (0, b"II+\0", "tif"),  # BigTIFF
    (0, b"MM\0+", "tif"),
    (8, b"WEBP", "webp"),
    (0, b"BM", "bmp"),
    (0, b"\x76\x2f\x31\x01", "exr"),
    (0, b"#?", "hdr"),
    (0, b"\xff\x0a", "jxl"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
)

_BRANDS = ((b"avif", "avif"), (b"avis", "avif"), (b"hei", "heic"), (b"hev", "heic"))  # of files that begin with ftyp

_RAW = (
    (8, b"CR\x02\0"),  # Canon CR2
    (4, b"ftypcrx"),  # Canon CR3
    (6, b"HEAPCCDR"),  # Canon CRW
    (0, b"FUJIFILMCCD-RAW"),
    (0, b"IIU\0"),  # Panasonic
    (0, b"IIRO"),  # Olympus
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"FOVb"),  # Sigma
    (0, b"\0MRM"),  # Minolta
)
_RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef", ".mos"}
    | {".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)


def sniff(data: bytes) -> str | None:
    """The name of the format that `data` begins like, or None."""
    if _is_raw(data):
        return None
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        return next((name for brand, name in _BRANDS if brand in brands), None)
    return next((name for offset, magic, name in _PICTURES if data.startswith(magic, offset)), None)


def unreadable(data: bytes, name: str, formats: Iterable[str]) -> ReadError:
    """The error for a file that `sniff` does not know."""
    if not data:
        return ReadError(f"{name} is empty", hint="copy the file again from its source")
    if _is_raw(data):
        return raw_given(name)
    named_like_raw = Path(name).suffix.lower() in _RAW_SUFFIXES
    hint = "use hdr develop for camera raw files" if named_like_raw else "formats: " + ", ".join(formats)
    return ReadError(f"{name} is not a picture hdr can read", hint=hint)


def raw_given(name: str) -> ReadError:
    """The error for a camera raw file where a finished picture is wanted."""
    return ReadError(f"{name} is a camera raw file, not a finished picture", hint="use hdr develop")


def _is_raw(data: bytes) -> bool:
    return any(data.startswith(magic, offset) for offset, magic in _RAW)
