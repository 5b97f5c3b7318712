"""JPEG (ISO/IEC 10918-1, JFIF, EXIF): grey, YCbCr, RGB, CMYK and YCCK; baseline and progressive."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from hdrcli import icc
from hdrcli.codecs import WriteOptions, _about, _display, _exif, _jpegfile, _pillow, _uhdr, _xmp
from hdrcli.codecs._jpegfile import APP1, APP2
from hdrcli.codecs._quiet import libraries_silent
from hdrcli.errors import UsageError
from hdrcli.image import Image, Metadata, Transfer

_LONGEST_SIDE = 65500  # libjpeg
_LARGEST_EXIF = _jpegfile.MOST - len(_jpegfile.EXIF)
_QUICK = {"L": cv2.IMREAD_GRAYSCALE, "RGB": cv2.IMREAD_COLOR_RGB}  # how OpenCV decodes what Pillow calls so
_LARGEST_XMP = _jpegfile.MOST - len(_jpegfile.XMP)


def read(data: bytes, name: str) -> Image:
    """An sRGB image; a file that ends early is an error, never grey. Of an Ultra HDR file, the picture on show."""
    picture = _pillow.opened(JpegImageFile, data, name)
    pixels, notes = _decoded(picture, data, name)
    exif = _exif.stripped(_pillow.exif(picture))
    image = _display.to_image(
        pixels,
        bits=8,
        profile=_pillow.icc_profile(picture),
        exif=exif,
        xmp=_pillow.xmp(picture),
        notes=notes,
    )
    return replace(image, meta=_with_gain_map(replace(image.meta, jpeg=data)))


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """Baseline JPEG without chroma subsampling, with an sRGB profile; of linear light, an Ultra HDR JPEG."""
    _display.require_bt709(image, "jpg")
    if image.transfer == Transfer.LINEAR:
        return _uhdr.write(image, path, options, lambda base, options: _encoded(base, options)[0])
    data, notes = _encoded(image, options)
    path.write_bytes(data)
    return notes


def _encoded(image: Image, options: WriteOptions) -> tuple[bytes, list[str]]:
    pixels, notes = _display.to_samples(image, _LONGEST_SIDE, "jpg")
    exif, xmp, remarks = _about.blocks(image, options, most_exif=_LARGEST_EXIF, most_xmp=_LARGEST_XMP)
    buffer = BytesIO()
    Pillow.fromarray(pixels).save(
        buffer,
        "JPEG",
        quality=checked_quality(options),
        subsampling=0,
        icc_profile=icc.srgb_profile(),
        exif=_jpegfile.EXIF + exif if exif else b"",
        xmp=xmp,
    )
    return buffer.getvalue(), [*notes, *remarks]


def _decoded(picture: ImageFile, data: bytes, name: str) -> tuple[NDArray[np.uint8], list[str]]:
    """The samples, and a note where libjpeg goes on over damaged data.

    By OpenCV, which is quicker and where libjpeg's complaints can be heard; Pillow keeps them to itself. By Pillow
    where there are any, for it knows a file that ends early, and of CMYK.
    """
    how = _QUICK.get(picture.mode, cv2.IMREAD_REDUCED_GRAYSCALE_8)
    with libraries_silent() as said:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture.mode in _QUICK and not said and pixels is not None:
        return np.asarray(pixels, np.uint8), []
    samples, notes = _pillow.samples(picture, name)
    return samples, notes + [f"the file is damaged, and so are parts of the picture ({line})" for line in said[:1]]


def _with_gain_map(meta: Metadata) -> Metadata:
    """What an Ultra HDR file says of the making of its gain map; nothing where its segments are in disorder."""
    try:
        parts = _jpegfile.parts(meta.jpeg)
        if not parts.content(APP2, _jpegfile.ISO_21496):
            return meta
        second = _jpegfile.parts(parts.rest[max(0, parts.rest.find(_jpegfile.SOI)) :])
    except ValueError:
        return meta
    note = "an Ultra HDR file: the picture that every viewer shows was read, not its gain map"
    extra = meta.extra | _xmp.provenance(second.content(APP1, _jpegfile.XMP))
    return replace(meta, notes=(*meta.notes, note), extra=extra)


def checked_quality(options: WriteOptions) -> int:
    """The quality of lossy formats, 1 to 100."""
    if not 1 <= options.quality <= 100:
        raise UsageError(f"quality {options.quality} is not between 1 and 100", hint="95 keeps all that eyes see")
    return options.quality
