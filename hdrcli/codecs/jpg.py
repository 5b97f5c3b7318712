"""JPEG (ISO/IEC 10918-1, JFIF, EXIF): grey, YCbCr, RGB, CMYK and YCCK; baseline and progressive."""

from pathlib import Path

from PIL import Image as Pillow
from PIL.JpegImagePlugin import JpegImageFile

from hdrcli import icc
from hdrcli.codecs import WriteOptions, _display, _exif, _pillow
from hdrcli.errors import UsageError
from hdrcli.image import Image

_LONGEST_SIDE = 65500  # libjpeg
_LARGEST_EXIF = 65533 - len(b"Exif\0\0")


def read(data: bytes, name: str) -> Image:
    """An sRGB image; a file that ends early is an error, never grey."""
    picture = _pillow.opened(JpegImageFile, data, name)
    pixels, notes = _pillow.samples(picture, name)
    exif = _exif.stripped(_pillow.exif(picture))
    return _display.to_image(pixels, bits=8, profile=_pillow.icc_profile(picture), exif=exif, notes=notes)


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """Baseline JPEG without chroma subsampling, with an sRGB profile."""
    pixels, notes = _display.to_bytes(image, _LONGEST_SIDE, "jpg")
    exif = b""
    if options.metadata:
        exif, remarks = _exif.for_output(image.meta.exif, image.width, image.height, limit=_LARGEST_EXIF)
        notes += remarks
    Pillow.fromarray(pixels).save(
        path,
        "JPEG",
        quality=checked_quality(options),
        subsampling=0,
        icc_profile=icc.srgb_profile(),
        exif=b"Exif\0\0" + exif if exif else b"",
    )
    return notes


def checked_quality(options: WriteOptions) -> int:
    """The quality of lossy formats, 1 to 100."""
    if not 1 <= options.quality <= 100:
        raise UsageError(f"quality {options.quality} is not between 1 and 100", hint="95 keeps all that eyes see")
    return options.quality
