"""Decoding by Pillow: every kind of 8-bit picture to plain samples; damaged files to ReadError."""

import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.ImageFile import ImageFile

from hdrcli.codecs._display import ALPHA_DROPPED, damaged
from hdrcli.errors import ReadError
from hdrcli.limits import check_size

# What Pillow's decoders raise on damaged files.
FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    Pillow.DecompressionBombError,
)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its complaints come as ReadError

_AS_IT_IS = {"L", "RGB", "CMYK"}
_TO_GREY = {"1", "LA", "La"}
_TO_RGB = {"RGBA", "RGBX", "RGBa", "YCbCr", "P", "PA"}


def opened(decoder: Callable[[BytesIO], ImageFile], data: bytes, name: str) -> ImageFile:
    """The picture, its header read and its size checked, its pixels not yet decoded.

    decoder: a class of one of Pillow's plugins; asked directly, so that Pillow's own, lower limit of size stays as the
    rest of the process has set it.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks on damaged metadata; a damaged picture raises
    try:
        picture = decoder(BytesIO(data))
    except FAULTS as error:
        raise damaged(name, error) from error
    check_size(picture.width, picture.height, name)
    return picture


def samples(picture: ImageFile, name: str) -> tuple[NDArray[np.uint8], list[str]]:
    """The pixels: (H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK, straight from alpha, and notes."""
    try:
        picture.load()
        converted = _converted(picture, name)
    except FAULTS as error:
        raise damaged(name, error) from error
    notes = [ALPHA_DROPPED] if picture.has_transparency_data else []
    if getattr(picture, "is_animated", False):
        notes.append("only the first of several pictures in the file was read")
    return np.asarray(converted), notes


def icc_profile(picture: ImageFile) -> bytes:
    """The ICC profile in the file, empty where there is none."""
    return _bytes(picture.info.get("icc_profile"))


def exif(picture: ImageFile) -> bytes:
    """The EXIF block in the file as it is stored, empty where there is none."""
    return _bytes(picture.info.get("exif"))


def xmp(picture: ImageFile) -> bytes:
    """The XMP packet in the file, empty where there is none."""
    return _bytes(picture.info.get("xmp"))


def _converted(picture: ImageFile, name: str) -> Pillow.Image:
    if picture.mode in _AS_IT_IS:
        return picture
    if picture.mode in _TO_GREY:
        return picture.convert("LA" if picture.mode == "La" else picture.mode).convert("L")
    if picture.mode in _TO_RGB:
        straight = picture.convert("RGBA") if picture.has_transparency_data else picture
        return straight.convert("RGB")
    raise ReadError(f"{name} holds {picture.mode} pixels, which hdr does not read", hint="save it as 8- or 16-bit RGB")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""
