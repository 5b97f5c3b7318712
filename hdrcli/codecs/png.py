"""PNG (W3C, third edition): 1 to 16 bits, grey, RGB, palette, with and without alpha."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from hdrcli import icc
from hdrcli.codecs import WriteOptions, _about, _display, _exif, _linear, _opencv, _pillow, _pq, _xmp
from hdrcli.color import BT709, BT2020, DISPLAY_P3, SDR_WHITE
from hdrcli.errors import ReadError
from hdrcli.image import Image, Metadata, Transfer

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LONGEST_SIDE = 1_000_000  # libpng, unless told otherwise
_PIXELS, _END = (b"IHDR", b"IDAT"), (b"IEND", b"")
_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"  # keyword of an uncompressed iTXt chunk, without language
_PERCEPTUAL = b"\0"  # rendering intent of the sRGB chunk

# cICP, by the code points of ITU-T H.273
_PRIMARIES = {1: BT709, 9: BT2020, 12: DISPLAY_P3}
_LIKE_SRGB = (1, 6, 13, 14, 15)  # BT.709 and BT.2020 are shown like sRGB
_PQ = bytes(_pq.CODE_POINTS)
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}


def read(data: bytes, name: str) -> Image:
    """An sRGB image, or a linear one of a PQ file; 16-bit files keep their depth."""
    picture = _pillow.opened(PngImageFile, data, name)
    _verify(data, name)
    chunks = dict(_chunks(data))
    exif, xmp = _exif.stripped(chunks.get(b"eXIf", b"")), _pillow.xmp(picture)
    bits = chunks[b"IHDR"][8]
    if chunks.get(b"cICP", b"").startswith(_PQ) and bits == 16:
        codes = np.asarray(_exif.upright(_bare(data, name)[..., :3], _exif.orientation(exif)))
        meta = Metadata(exif=exif, xmp=xmp, profile="BT.2020 PQ", bits=bits, extra=_xmp.provenance(xmp))
        return _linear.to_image(_pq.to_light(codes, bits), meta, primaries=BT2020, white=SDR_WHITE)
    profile = _meaning(chunks, _pillow.icc_profile(picture), name)
    if bits < 16:
        pixels, notes = _pillow.samples(picture, name)
        return _display.to_image(pixels, bits=bits, profile=profile, exif=exif, xmp=xmp, notes=notes)
    stored = _bare(data, name)
    notes = [_display.ALPHA_DROPPED] if picture.has_transparency_data else []
    straight = stored[..., :3] if stored.ndim == 3 else stored
    return _display.to_image(straight, bits=bits, profile=profile, exif=exif, xmp=xmp, notes=notes)


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """8- or 16-bit RGB PNG marked as sRGB; of linear light, 16 bits in PQ and BT.2020."""
    if image.transfer == Transfer.LINEAR:
        _display.check_output(image, _LONGEST_SIDE, "png")
        pixels, notes = _pq.to_codes(image, 16)
        marks = [(b"cICP", _PQ + b"\0\1")]  # RGB, full range
    else:
        pixels, notes = _display.to_samples(image, _LONGEST_SIDE, "png", options.bits)
        marks = [(b"sRGB", _PERCEPTUAL)]
    head, *rest = _chunks(_opencv.encode(".png", pixels))
    exif, xmp, remarks = _about.blocks(image, options)
    marks += [(b"eXIf", exif)] if exif else []
    marks += [(b"iTXt", _XMP + xmp)] if xmp else []
    path.write_bytes(_joined([head, *marks, *(chunk for chunk in rest if chunk[0] in _PIXELS), _END]))
    return [*notes, *remarks]


def stored(data: bytes, name: str) -> NDArray[Any]:
    """The samples as they are stored, (H, W) or (H, W, channels), whatever they mean. ReadError where damaged."""
    _verify(data, name)
    return _bare(data, name)


def _verify(data: bytes, name: str) -> None:
    """ReadError unless all chunks are whole, for OpenCV believes what they say of their size."""
    try:
        _pillow.opened(PngImageFile, data, name).verify()
    except _pillow.FAULTS as error:
        raise _display.damaged(name, error) from error


def _bare(data: bytes, name: str) -> NDArray[Any]:
    """The stored samples, read without the chunks on which libpng prints its opinion."""
    bare = [chunk for chunk in _chunks(data) if chunk[0] in _PIXELS]
    return _opencv.decode(_joined([*bare, _END]), name)


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
            hint="16 and 18 are HDR: PQ is read with 16 bits in BT.2020 (9/16); give others as exr or hdr",
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
