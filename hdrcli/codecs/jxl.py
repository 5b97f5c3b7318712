"""JPEG XL (ISO/IEC 18181): finished pictures in 8 bits, light as floats, without loss."""

import os
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from hdrcli.codecs import WriteOptions, _about, _display, _exif, _isobmff, _jxlheader, _linear, _pq, _xmp
from hdrcli.codecs._linear import clipped
from hdrcli.codecs.jpg import checked_quality
from hdrcli.color import SDR_WHITE
from hdrcli.errors import ReadError
from hdrcli.icc import Profile, of_primaries
from hdrcli.image import Image, Metadata, Transfer
from hdrcli.limits import check_size

_BARE = b"\xff\x0a"
_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
_BRAND = b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
_LONGEST_SIDE = 2**18  # of profile level 5
_THREADS = min(8, os.cpu_count() or 1)


def read(data: bytes, name: str) -> Image:
    """An sRGB image, or a linear one where the file holds linear light or PQ."""
    try:
        exif, xmp = _metadata(data)
        header = _jxlheader.read(_codestream(data))
        check_size(header.width, header.height, name)
        samples = np.asarray(imagecodecs.jpegxl_decode(data, index=0))
    except (ValueError, IndexError, imagecodecs.JpegxlError) as error:
        raise _display.damaged(name, error) from error
    samples, notes = _three_channels(samples)
    if header.transfer in ("linear", "pq"):
        meta = Metadata(
            exif=exif, xmp=xmp, profile=header.name, bits=header.bits, notes=tuple(notes), extra=_xmp.provenance(xmp)
        )
        light = _light(samples, header.transfer)
        white = SDR_WHITE if header.transfer == "pq" else None
        return _linear.to_image(light, meta, primaries=header.primaries, white=white)
    if header.transfer != "srgb":
        raise ReadError(f"{name} holds a transfer function that hdr does not read", hint="give it as sRGB or linear")
    whole = samples if samples.dtype.kind == "u" else np.rint(np.clip(samples, 0, 1) * 65535).astype(np.uint16)
    profile: Profile | bytes = b"" if header.name == "sRGB" else of_primaries(header.name, header.primaries)
    return _display.to_image(
        whole, bits=header.bits, profile=profile, exif=exif, xmp=xmp, turned=True, notes=[*notes, *header.notes]
    )


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """8-bit lossy sRGB; of linear light, lossless half or single floats in BT.709, or 16-bit PQ in BT.2020."""
    about = _about.blocks(image, options)
    if image.transfer == Transfer.SRGB:
        pixels, notes = _display.to_samples(image, _LONGEST_SIDE, "jxl")
        coded = imagecodecs.jpegxl_encode(pixels, level=checked_quality(options), numthreads=_THREADS)
    elif options.pq:
        _display.check_output(image, _LONGEST_SIDE, "jxl")
        codes, notes = _pq.to_codes(image, 16)
        linear = _codestream(bytes(imagecodecs.jpegxl_encode(codes, lossless=True, numthreads=_THREADS)))
        coded = _jxlheader.as_pq(linear)
    else:
        _display.check_output(image, _LONGEST_SIDE, "jxl")
        kind = np.float16 if options.half else np.float32
        high = float(np.finfo(kind).max)
        light, notes = clipped(image.pixels, -high, high)
        coded = imagecodecs.jpegxl_encode(light.astype(kind), lossless=True, numthreads=_THREADS)
    coded = _codestream(bytes(coded))
    exif = _isobmff.box(b"Exif", bytes(4) + about.exif) if about.exif else b""
    xmp = _isobmff.box(b"xml ", about.xmp) if about.xmp else b""
    path.write_bytes(_SIGNATURE + _BRAND + _isobmff.box(b"jxlc", coded) + exif + xmp)
    return [*notes, *about.notes]


def _codestream(data: bytes) -> bytes:
    """The coded picture without its container; ValueError where that ends early."""
    if data.startswith(_BARE):
        return data
    found = list(_isobmff.boxes(data))
    if not found or found[-1][2] != len(data):
        raise ValueError("a box is cut short")
    heads = {b"jxlc": 0, b"jxlp": 4}  # bytes before the coded picture
    return b"".join(data[start + heads[kind] : end] for kind, start, end in found if kind in heads)


def _metadata(data: bytes) -> tuple[bytes, bytes]:
    """EXIF block and XMP packet; those that are compressed are left out."""
    found = {kind: data[start:end] for kind, start, end in _isobmff.boxes(data)} if not data.startswith(_BARE) else {}
    return _exif.stripped(found.get(b"Exif", b"")[4:]), found.get(b"xml ", b"")


def _three_channels(samples: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """(H, W) or (H, W, 3) without alpha."""
    if samples.ndim == 2 or samples.shape[2] == 3:
        return samples, []
    if samples.shape[2] == 1:
        return samples[..., 0], []
    straight = samples[..., 0] if samples.shape[2] == 2 else samples[..., :3]
    return straight, [_display.ALPHA_DROPPED]


def _light(samples: NDArray[Any], transfer: str) -> NDArray[Any]:
    full = float(np.iinfo(samples.dtype).max) if samples.dtype.kind == "u" else 1.0
    if transfer == "linear":
        return samples if full == 1 else np.asarray(samples / np.float32(full), np.float32)
    values = np.clip(np.asarray(samples, np.float32) / np.float32(full), 0, 1)
    return _pq.decode(values) / np.float32(SDR_WHITE)
