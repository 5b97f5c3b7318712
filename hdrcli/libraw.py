"""Opens RAW files with LibRaw, quietly, and says in plain words why one does not open."""

import ctypes
import io
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

import rawpy

from hdrcli.codecs import _ifd
from hdrcli.errors import ReadError
from hdrcli.limits import check_size

RECOPY = "copy the file again from the camera or its card"

_LEAST_SIDE = 22
_JPEG_XL = 52546  # TIFF compression


@contextmanager
def opened(data: bytes, label: str) -> Iterator[rawpy.RawPy]:
    """A RAW file opened and decoded; whatever LibRaw has against it, then or later, becomes a ReadError."""
    try:
        with _quiet(), rawpy.imread(io.BytesIO(data)) as raw:
            check_size(raw.sizes.raw_width, raw.sizes.raw_height, label)
            raw.unpack()
            yield raw
    except (rawpy.LibRawFileUnsupportedError, NotImplementedError) as error:
        raise _unsupported(data, label) from error
    except (rawpy.LibRawTooBigError, rawpy.LibRawUnsufficientMemoryError, rawpy.LibRawMemPoolOverflowError) as error:
        raise ReadError(f"{label} claims a picture too large to decode", hint=f"it may be damaged: {RECOPY}") from error
    except (rawpy.LibRawError, rawpy.NotSupportedError, OSError) as error:
        raise ReadError(f"{label} is damaged or cut short, so that LibRaw cannot decode it", hint=RECOPY) from error


def _unsupported(data: bytes, label: str) -> ReadError:
    """Why a file is not one that LibRaw opens, as far as its first bytes and its TIFF directories tell."""
    pictures = [directory for directory in _ifd.directories(data) if 256 in directory and 257 in directory]
    raws = [directory for directory in pictures if _value(directory, 262) in (32803, 34892)]  # CFA, linear raw
    if any(_value(directory, 259) == _JPEG_XL for directory in pictures):
        return ReadError(
            f"{label} is compressed as JPEG XL, which this LibRaw cannot decode",
            hint="convert it with Adobe DNG Converter, without lossy compression",
        )
    if raws:
        width, height = _value(raws[0], 256), _value(raws[0], 257)
        if 0 < min(width, height) < _LEAST_SIDE:
            return ReadError(
                f"{label} is {width}x{height} pixels, and LibRaw takes none below {_LEAST_SIDE}",
                hint="develop the whole picture instead of a cut-out",
            )
        return ReadError(f"{label} is a RAW file that is damaged or coded in a way unknown to LibRaw", hint=RECOPY)
    kind = next((kind for kind, is_kind in _FINISHED.items() if is_kind(data)), "TIFF" if pictures else "")
    if kind:
        return ReadError(f"{label} is a finished {kind} picture, not a camera RAW file", hint="use hdr expand")
    return ReadError(
        f"{label} is not a camera RAW file that LibRaw knows",
        hint="if it should be one, it is damaged, or the camera is newer than the installed rawpy",
    )


_FINISHED: dict[str, Callable[[bytes], bool]] = {
    "JPEG": lambda data: data.startswith(b"\xff\xd8\xff"),
    "GIF": lambda data: data.startswith(b"GIF8"),
    "BMP": lambda data: data.startswith(b"BM"),
    "WebP": lambda data: data[8:12] == b"WEBP",
    "HEIF or AVIF": lambda data: data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"avif"),
    "JPEG XL": lambda data: data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    "OpenEXR": lambda data: data.startswith(b"\x76\x2f\x31\x01"),
    "Radiance": lambda data: data.startswith(b"#?"),
}


def _value(directory: _ifd.Directory, tag: int) -> int:
    return int(directory[tag].values[0]) if tag in directory and directory[tag].values else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what LibRaw and its codecs print about damaged files off the terminal, where the C library allows it.

    Only the C library's `stderr` variable is exchanged, from the first thread that decodes until the last one is done:
    Python's own output, of any thread, goes where it went.
    """
    variable, terminal, nowhere = _c_stderr()
    if variable is None:
        yield
        return
    with _LOCK:
        _DECODING.append(None)
        variable.value = nowhere
    try:
        yield
    finally:
        with _LOCK:
            _DECODING.pop()
            if not _DECODING:
                variable.value = terminal


_LOCK = Lock()
_DECODING: list[None] = []  # one entry for each thread at it


@cache
def _c_stderr() -> tuple[ctypes.c_void_p | None, int | None, int | None]:
    """The C library's variable `stderr`, its value, and a stream that leads nowhere; None where it may not be set."""
    name = {"glibc": "stderr"}.get(platform.libc_ver()[0]) or {"Darwin": "__stderrp"}.get(platform.system())
    if name is None:
        return None, None, None
    library = ctypes.CDLL(None)
    library.fopen.restype = ctypes.c_void_p
    variable = ctypes.c_void_p.in_dll(library, name)
    return variable, variable.value, library.fopen(os.devnull.encode(), b"w")
