"""JPEG (ISO/IEC 10918-1, JFIF, EXIF): grey, YCbCr, RGB, CMYK and YCCK; baseline and progressive."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

from PIL import Image as Pillow
from PIL.JpegImagePlugin import JpegImageFile

from hdrcli import icc
from hdrcli.codecs import WriteOptions, _display, _exif, _jpegfile, _pillow, _uhdr, _xmp
from hdrcli.codecs._jpegfile import APP1, APP2
from hdrcli.errors import UsageError
from hdrcli.image import Image, Metadata, Transfer

_LONGEST_SIDE = 65500  # libjpeg
_LARGEST_EXIF = _jpegfile.MOST - len(_jpegfile.EXIF)
_LARGEST_XMP = _jpegfile.MOST - len(_jpegfile.XMP)


def read(data: bytes, name: str) -> Image:
    """An sRGB image; a file that ends early is an error, never grey. Of an Ultra HDR file, the picture on show."""
    picture = _pillow.opened(JpegImageFile, data, name)
    pixels, notes = _pillow.samples(picture, name)
    exif = _exif.stripped(_pillow.exif(picture))
    image = _display.to_image(pixels, bits=8, profile=_pillow.icc_profile(picture), exif=exif, notes=notes)
    return replace(image, meta=_with_segments(image.meta, data))


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """Baseline JPEG without chroma subsampling, with an sRGB profile; of linear light, an Ultra HDR JPEG."""
    _display.require_bt709(image, "jpg")
    if image.transfer == Transfer.LINEAR:
        return _uhdr.write(image, path, options, lambda base, options: _encoded(base, options)[0])
    data, notes = _encoded(image, options)
    path.write_bytes(data)
    return notes


def _encoded(image: Image, options: WriteOptions) -> tuple[bytes, list[str]]:
    pixels, notes = _display.to_bytes(image, _LONGEST_SIDE, "jpg")
    exif = xmp = b""
    if options.metadata:
        exif, remarks = _exif.for_output(image.meta.exif, image.width, image.height, limit=_LARGEST_EXIF)
        xmp = _xmp.for_output(image.meta.xmp, image.meta.extra)
        notes += remarks
    if len(xmp) > _LARGEST_XMP:
        xmp = _xmp.for_output(b"", image.meta.extra)
        notes.append("the XMP packet is too long for this format and was left out")
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
    return buffer.getvalue(), notes


def _with_segments(meta: Metadata, data: bytes) -> Metadata:
    """What the segments of a file say beside its EXIF; nothing where they are in disorder."""
    try:
        parts = _jpegfile.parts(data)
        xmp = parts.content(APP1, _jpegfile.XMP)
        extra = _xmp.provenance(xmp)
        if parts.content(APP2, _jpegfile.ISO_21496) and (place := parts.rest.find(_jpegfile.SOI)) >= 0:
            second = _jpegfile.parts(parts.rest[place:])
            extra |= _xmp.provenance(second.content(APP1, _jpegfile.XMP))
            extra["gain map"] = "ISO 21496-1"
    except ValueError:
        return meta
    return replace(meta, xmp=xmp, jpeg=data, extra={**meta.extra, **extra})


def checked_quality(options: WriteOptions) -> int:
    """The quality of lossy formats, 1 to 100."""
    if not 1 <= options.quality <= 100:
        raise UsageError(f"quality {options.quality} is not between 1 and 100", hint="95 keeps all that eyes see")
    return options.quality
