"""PNG (W3C, third edition): 1 to 16 bits, grey, RGB, palette, with and without alpha."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from hdrcli import icc
from hdrcli.codecs import WriteOptions, _display, _exif, _linear, _opencv, _pillow
from hdrcli.color import BT709, BT2020, DISPLAY_P3
from hdrcli.errors import ReadError
from hdrcli.image import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LONGEST_SIDE = 1_000_000  # libpng, unless told otherwise
_PIXELS, _END = (b"IHDR", b"IDAT"), (b"IEND", b"")
_PERCEPTUAL = b"\0"  # rendering intent of the sRGB chunk

# cICP, by the code points of ITU-T H.273
_PRIMARIES = {1: BT709, 9: BT2020, 12: DISPLAY_P3}
_LIKE_SRGB = (1, 6, 13, 14, 15)  # BT.709 and BT.2020 are shown like sRGB
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}


def read(data: bytes, name: str) -> Image:
    """An sRGB image; 16-bit files keep their depth."""
    picture = _pillow.opened(PngImageFile, data, name)
    try:
        _pillow.opened(PngImageFile, data, name).verify()
    except _pillow.FAULTS as error:
        raise _display.damaged(name, error) from error
    chunks = dict(_chunks(data))
    profile = _meaning(chunks, _pillow.icc_profile(picture), name)
    exif = _exif.stripped(chunks.get(b"eXIf", b""))
    bits = chunks[b"IHDR"][8]
    if bits < 16:
        pixels, notes = _pillow.samples(picture, name)
        return _display.to_image(pixels, bits=bits, profile=profile, exif=exif, notes=notes)
    bare = [chunk for chunk in _chunks(data) if chunk[0] in _PIXELS]  # libpng prints what it thinks of the others
    stored = _opencv.decode(_joined([*bare, _END]), name)
    notes = [_display.ALPHA_DROPPED] if picture.has_transparency_data else []
    straight = stored[..., :3] if stored.ndim == 3 else stored
    return _display.to_image(straight, bits=bits, profile=profile, exif=exif, notes=notes)


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """8-bit RGB PNG, marked as sRGB."""
    pixels, notes = _display.to_bytes(image, _LONGEST_SIDE, "png")
    head, *rest = _chunks(_opencv.encode(".png", pixels))
    marks = [(b"sRGB", _PERCEPTUAL)]
    if options.metadata:
        exif, remarks = _exif.for_output(image.meta.exif, image.width, image.height)
        marks.append((b"eXIf", exif))
        notes += remarks
    path.write_bytes(_joined([head, *marks, *(chunk for chunk in rest if chunk[0] in _PIXELS), _END]))
    return notes


def _meaning(chunks: dict[bytes, bytes], embedded: bytes, name: str) -> icc.Profile | bytes:
    """What the numbers mean, by the order of precedence of the standard: cICP, iCCP, sRGB, cHRM with gAMA."""
    if len(code := chunks.get(b"cICP", b"")) == 4:
        return _coded(code[0], code[1], name)
    if embedded or b"sRGB" in chunks or b"gAMA" not in chunks or len(chunks[b"gAMA"]) != 4:
        return embedded
    exponent = struct.unpack(">I", chunks[b"gAMA"])[0] / 100_000
    primaries = BT709
    if len(chromaticities := chunks.get(b"cHRM", b"")) == 32:
        white_first = np.frombuffer(chromaticities, ">u4") / 100_000
        primaries = _linear.chromaticities("PNG chromaticities", np.roll(white_first, -2).tolist())
    if exponent <= 0 or (primaries == BT709 and abs(exponent - 1 / 2.2) < 1e-3):
        return b""  # what programs write that mean sRGB
    return icc.of_primaries(f"gamma 1/{1 / exponent:.2f}", primaries, 1 / exponent)


def _coded(primaries: int, transfer: int, name: str) -> icc.Profile:
    known = _PRIMARIES.get(primaries)
    if known is None or transfer not in (*_LIKE_SRGB, *_GAMMAS):
        raise ReadError(
            f"{name} is marked as colour code points {primaries}/{transfer} (cICP), which hdr does not read",
            hint="16 and 18 are HDR (PQ, HLG): give the HDR picture as exr or hdr",
        )
    return icc.of_primaries(f"cICP {known.name}", known, _GAMMAS.get(transfer))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the chunks of a file that is known to be whole."""
    place = len(_SIGNATURE)
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + size]
        place += 12 + size


def _joined(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [_SIGNATURE]
    for kind, content in chunks:
        parts += [struct.pack(">I4s", len(content), kind), content, struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(parts)
