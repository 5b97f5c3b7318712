"""TIFF 6.0: 1- to 8-bit pictures of every kind, and grey and RGB in 16 bits and in floating point."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from hdrcli import icc
from hdrcli.codecs import WriteOptions, _about, _display, _exif, _ifd, _linear, _opencv, _pillow, _xmp
from hdrcli.codecs._ifd import BYTE, LONG, SHORT, UNDEFINED, Directory, Entry
from hdrcli.codecs._quiet import libraries_silent
from hdrcli.codecs._sniff import raw_given
from hdrcli.errors import ReadError, WriteError
from hdrcli.image import Image, Metadata, Transfer
from hdrcli.limits import check_size

_LONGEST_SIDE = 2**20  # OpenCV
_LZW, _HORIZONTAL_DIFFERENCES, _FLOAT_DIFFERENCES = 5, 2, 3
_LARGEST_SINGLE = float(np.finfo(np.float32).max)

_COMMON_COMPRESSIONS = (1, 5, 8, 32946, 32773)  # none, LZW, Deflate (two numbers for it), PackBits

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS = 254, 256, 257, 258, 259, 262, 273
_SAMPLES, _STRIP_SIZES, _PLANAR, _TILES, _TILE_SIZES, _EXTRA_SAMPLES = 277, 279, 284, 324, 325, 338
_SAMPLE_FORMAT, _XMP, _ICC, _DNG_VERSION = 339, 700, 34675, 50706
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT, _UNCOMPRESSED = 278, 322, 323, 1
_LAYOUT = (_HEIGHT, _COMPRESSION, _STRIPS, _ROWS_PER_STRIP, _STRIP_SIZES, _TILE_HEIGHT, _TILES, _TILE_SIZES)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_SENSOR_DATA = (32803, 34892)  # colour filter array, linear raw
_INTERLEAVED, _PREMULTIPLIED = 1, 1
_UNSIGNED, _FLOAT = 1, 3


def read(data: bytes, name: str) -> Image:
    """An sRGB image, or a linear one where the samples are floating-point. Of several pages, the first."""
    if data[2:4] in (b"+\0", b"\0+"):
        raise ReadError(f"{name} is a BigTIFF, which hdr does not read", hint="save it as a classic TIFF")
    tags = _ifd.read(data)
    if _is_raw(tags):
        raise raw_given(name)
    _check_whole(tags, data, name)
    bits = max(_numbers(tags, _BITS))
    exif = _exif.from_tiff(data)
    profile, xmp = _bytes(tags, _ICC), _bytes(tags, _XMP)
    if bits <= 8 and not _is_plain(tags):
        samples, notes = _eight_bits(data, name)
    else:
        samples, notes = _stored(tags, data, name)
    if samples.dtype.kind == "f":
        meta = Metadata(exif=exif, xmp=xmp, bits=bits, notes=tuple(notes), extra=_xmp.provenance(xmp))
        return _light(samples, profile, meta)
    return _display.to_image(samples, bits=bits, profile=profile, exif=exif, xmp=xmp, turned=True, notes=notes)


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """8- or 16-bit RGB TIFF with an sRGB profile; of linear light, 32-bit floats with a linear one. LZW."""
    if image.transfer == Transfer.LINEAR:
        _display.check_output(image, _LONGEST_SIDE, "tif")
        pixels, notes = _linear.clipped(image.pixels, -_LARGEST_SINGLE, _LARGEST_SINGLE)
        predictor, profile = _FLOAT_DIFFERENCES, icc.linear_profile()
    else:
        pixels, notes = _display.to_samples(image, _LONGEST_SIDE, "tif", options.bits)
        predictor, profile = _HORIZONTAL_DIFFERENCES, icc.srgb_profile()
    stored = _opencv.encode(".tif", pixels, (cv2.IMWRITE_TIFF_COMPRESSION, _LZW, cv2.IMWRITE_TIFF_PREDICTOR, predictor))
    exif, xmp, remarks = _about.blocks(image, options)
    main = _ifd.read(exif) | _ifd.read(stored) | {_ICC: Entry(UNDEFINED, tuple(profile))}
    main |= {_XMP: Entry(BYTE, tuple(xmp))} if xmp else {}
    below = _exif.below(exif)
    # OpenCV's strips stay together, behind the new directory instead of before the old one.
    starts, sizes = _numbers(main, _STRIPS), _numbers(main, _STRIP_SIZES)
    strips = stored[min(starts) : max(starts) + sizes[starts.index(max(starts))]]
    shift = len(_ifd.build(main, below)) - min(starts)
    main[_STRIPS] = Entry(LONG, tuple(start + shift for start in starts))
    head = _ifd.build(main, below)
    if len(head) + len(strips) >= 2**32:
        raise WriteError(f"{path} would exceed the 4 GB that a TIFF holds", hint="write png instead")
    path.write_bytes(head + strips)
    return [*notes, *remarks]


def _numbers(tags: Directory, tag: int, default: int = 1) -> tuple[int, ...]:
    return tuple(int(value) for value in tags[tag].values) if tag in tags and tags[tag].values else (default,)


def _bytes(tags: Directory, tag: int) -> bytes:
    return bytes(int(value) & 255 for value in tags[tag].values) if tag in tags else b""


def _is_raw(tags: Directory) -> bool:
    """Camera raw files are TIFF structures: sensor data in the first directory, or beside a small preview there."""
    only_preview = bool(_numbers(tags, _SUBFILE, 0)[0] & 1) and _ifd.SUB_IFDS in tags
    return _DNG_VERSION in tags or _numbers(tags, _PHOTOMETRIC)[0] in _SENSOR_DATA or only_preview


def _check_whole(tags: Directory, data: bytes, name: str) -> None:
    """ReadError where there is no size or pixels lie beyond the end of the file, which decoders would leave black."""
    if not {_WIDTH, _HEIGHT} <= tags.keys():
        raise _display.damaged(name, "it has no size")
    check_size(_numbers(tags, _WIDTH)[0], _numbers(tags, _HEIGHT)[0], name)
    offsets, sizes = (_STRIPS, _STRIP_SIZES) if _STRIPS in tags else (_TILES, _TILE_SIZES)
    if offsets not in tags or sizes not in tags:
        raise _display.damaged(name, "it holds no pixels")
    ends = [start + size for start, size in zip(_numbers(tags, offsets), _numbers(tags, sizes), strict=False)]
    if max(ends) > len(data):
        raise _display.damaged(name, "it ends before its pixels do")


def _is_plain(tags: Directory) -> bool:
    """Whether OpenCV hands out the samples as they are stored; it misreads some of the others without an error."""
    samples, bits, shown_as = _numbers(tags, _SAMPLES)[0], max(_numbers(tags, _BITS)), _numbers(tags, _PHOTOMETRIC)[0]
    grey = samples == 1 and bits >= 8 and shown_as in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    rgb = samples == 3 or (samples == 4 and bits > 8)
    interleaved_rgb = rgb and shown_as == _RGB and _numbers(tags, _PLANAR)[0] == _INTERLEAVED
    return (grey or interleaved_rgb) and _numbers(tags, _COMPRESSION)[0] in _COMMON_COMPRESSIONS


def _eight_bits(data: bytes, name: str) -> tuple[NDArray[Any], list[str]]:
    with libraries_silent():
        return _pillow.samples(_pillow.opened(TiffImageFile, data, name), name)


def _stored(tags: Directory, data: bytes, name: str) -> tuple[NDArray[Any], list[str]]:
    kinds = {*zip(_numbers(tags, _BITS), _numbers(tags, _SAMPLE_FORMAT) * 4, strict=False)}
    readable = {(8, _UNSIGNED), (16, _UNSIGNED), (32, _FLOAT), (64, _FLOAT)}
    if not _is_plain(tags) or len(kinds) > 1 or not kinds <= readable:
        raise ReadError(
            f"{name} is a kind of TIFF that hdr does not read", hint="save it as interleaved 8- or 16-bit RGB"
        )
    _check_compressed(tags, data, name)
    samples = _opencv.decode(data, name)
    if _numbers(tags, _PHOTOMETRIC)[0] == _WHITE_IS_ZERO and samples.dtype != np.uint8:  # those OpenCV inverts itself
        samples = (1 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max) - samples
    if samples.ndim == 2 or samples.shape[2] == 3:
        return samples, []
    if _numbers(tags, _EXTRA_SAMPLES, 0)[0] == _PREMULTIPLIED and samples.dtype.kind == "u":
        return _straight(samples), [_display.ALPHA_DROPPED]
    return samples[..., :3], [_display.ALPHA_DROPPED]


def _check_compressed(tags: Directory, data: bytes, name: str) -> None:
    """ReadError where compressed pixels are damaged, which OpenCV leaves black without a word.

    They are decoded as plain bytes: as an 8-bit grey picture, which Pillow takes whatever the samples are.
    """
    if _numbers(tags, _COMPRESSION)[0] == _UNCOMPRESSED:
        return
    wide = _numbers(tags, _SAMPLES)[0] * max(_numbers(tags, _BITS)) // 8
    plain = {tag: tags[tag] for tag in _LAYOUT if tag in tags}
    plain |= {
        tag: Entry(LONG, (_numbers(tags, tag)[0] * wide % 2**32,)) for tag in (_WIDTH, _TILE_WIDTH) if tag in tags
    }
    plain |= {_BITS: Entry(SHORT, (8,)), _SAMPLES: Entry(SHORT, (1,)), _PHOTOMETRIC: Entry(SHORT, (_BLACK_IS_ZERO,))}
    with libraries_silent():
        _pillow.samples(_pillow.opened(TiffImageFile, _ifd.redirected(data, plain), name), name)


def _straight(samples: NDArray[Any]) -> NDArray[Any]:
    """The colours of RGBA samples that were multiplied by their alpha."""
    most = np.iinfo(samples.dtype).max
    colour = samples[..., :3] * (most / np.maximum(samples[..., 3:], 1).astype(np.float64))
    return np.asarray(np.rint(np.minimum(colour, most)), samples.dtype)


def _light(samples: NDArray[Any], profile: bytes, meta: Metadata) -> Image:
    """Floating-point samples by their profile, which often is that of the editor's working space."""
    try:
        known = icc.parse(profile) if profile else None
    except icc.ProfileError:
        known = None
    channels = samples[..., None] if samples.ndim == 2 else samples
    if known is None or len(known.curves) != channels.shape[-1]:
        note = "floating-point TIFF without a usable profile: taken for linear light in BT.709"
        return _linear.to_image(samples, _noted(meta, note, ""))
    if profile == icc.linear_profile():  # what is written here, without its rounding
        return _linear.to_image(samples, _noted(meta, "", known.description))
    light = known.linear(channels)
    return _linear.to_image(light[..., 0] if samples.ndim == 2 else light, _noted(meta, "", known.description))


def _noted(meta: Metadata, note: str, profile: str) -> Metadata:
    return replace(meta, profile=profile, notes=(*meta.notes, *([note] if note else [])))
