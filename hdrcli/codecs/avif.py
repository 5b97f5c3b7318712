"""AVIF (AOMedia, ISO/IEC 23000-22): finished pictures in 8 bits, light in 10-bit PQ."""

import os
import struct
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image as Pillow
from PIL.AvifImagePlugin import AvifImageFile

from hdrcli.codecs import WriteOptions, _about, _display, _exif, _isobmff, _linear, _pillow, _pq, _xmp
from hdrcli.codecs.jpg import checked_quality
from hdrcli.color import BT709, BT2020, DISPLAY_P3, SDR_WHITE
from hdrcli.errors import ReadError
from hdrcli.icc import of_primaries
from hdrcli.image import Image, Metadata, Transfer

_LONGEST_SIDE = 65535
_BITS = 10
_PRIMARIES = {1: BT709, 9: BT2020, 12: DISPLAY_P3}  # ITU-T H.273
_PQ, _HLG = 16, 18
_BT2020_MATRIX = 9
_SPEED = 9  # of 10; 8 takes three times as long for 4 % fewer bytes
_THREADS = min(8, os.cpu_count() or 1)


def read(data: bytes, name: str) -> Image:
    """An sRGB image, or a linear one of a PQ file."""
    picture = _pillow.opened(AvifImageFile, data, name)
    exif, xmp = _exif.stripped(_pillow.exif(picture)), _pillow.xmp(picture)
    colours, transfer = _code_points(data)
    primaries = _PRIMARIES.get(colours, BT709)
    if transfer == _HLG:
        raise ReadError(f"{name} holds HLG, which hdr does not read", hint="give the HDR picture as exr or hdr")
    if transfer == _PQ:
        codes, bits = _codes(data, name)
        upright = _exif.upright(codes[..., :3], _exif.orientation(exif))
        meta = Metadata(exif=exif, xmp=xmp, profile=f"{primaries.name} PQ", bits=bits, extra=_xmp.provenance(xmp))
        return _linear.to_image(_pq.to_light(upright, bits), meta, primaries=primaries, white=SDR_WHITE)
    pixels, notes = _pillow.samples(picture, name)
    embedded = _pillow.icc_profile(picture)
    profile = embedded or (b"" if primaries == BT709 else of_primaries(primaries.name, primaries))
    return _display.to_image(pixels, bits=8, profile=profile, exif=exif, xmp=xmp, notes=notes)


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """8-bit AVIF without chroma subsampling; of linear light, 10-bit PQ in BT.2020."""
    quality = checked_quality(options)
    about = _about.blocks(image, options)
    if image.transfer == Transfer.SRGB:
        pixels, notes = _display.to_samples(image, _LONGEST_SIDE, "avif")
        picture = Pillow.fromarray(pixels)
        picture.save(path, "AVIF", quality=quality, subsampling="4:4:4", exif=about.exif, xmp=about.xmp)
        return [*notes, *about.notes]
    _display.check_output(image, _LONGEST_SIDE, "avif")
    codes, notes = _pq.to_codes(image, _BITS)
    primaries, transfer = _pq.CODE_POINTS
    data = imagecodecs.avif_encode(
        codes,
        level=quality,
        speed=_SPEED,
        numthreads=_THREADS,
        bitspersample=_BITS,
        pixelformat="444",
        primaries=primaries,
        transfer=transfer,
        matrix=_BT2020_MATRIX,
    )
    path.write_bytes(_isobmff.with_items(bytes(data), about.exif, about.xmp) if about.exif or about.xmp else data)
    return [*notes, *about.notes]


def _code_points(data: bytes) -> tuple[int, int]:
    """Primaries and transfer of the first picture, (2, 2) where the file does not say."""
    place = data.find(b"colrnclx")
    if not 0 <= place <= len(data) - 12:
        return 2, 2
    primaries, transfer = struct.unpack_from(">HH", data, place + 8)
    return primaries, transfer


def _codes(data: bytes, name: str) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint16]], int]:
    """The RGB codes as they are coded, and their bits."""
    try:
        codes = np.asarray(imagecodecs.avif_decode(data, index=0))
    except imagecodecs.AvifError as error:
        raise _display.damaged(name, error) from error
    place = data.find(b"av1C")
    depth = data[place + 6] if 0 <= place < len(data) - 6 else 0
    bits = (12 if depth & 0x20 else 10) if depth & 0x40 else 8
    return codes.astype(np.uint16), bits
