"""WebP: lossy and lossless 8-bit pictures."""

from pathlib import Path

from PIL import Image as Pillow
from PIL.WebPImagePlugin import WebPImageFile

from hdrcli import icc
from hdrcli.codecs import WriteOptions, _about, _display, _exif, _pillow
from hdrcli.codecs.jpg import checked_quality
from hdrcli.image import Image

_LONGEST_SIDE = 16383


def read(data: bytes, name: str) -> Image:
    """An sRGB image; of an animation the first picture."""
    picture = _pillow.opened(WebPImageFile, data, name)
    pixels, notes = _pillow.samples(picture, name)
    return _display.to_image(
        pixels,
        bits=8,
        profile=_pillow.icc_profile(picture),
        exif=_exif.stripped(_pillow.exif(picture)),
        xmp=_pillow.xmp(picture),
        notes=notes,
    )


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """Lossy WebP with an sRGB profile."""
    pixels, notes = _display.to_samples(image, _LONGEST_SIDE, "webp")
    exif, xmp, remarks = _about.blocks(image, options)
    Pillow.fromarray(pixels).save(
        path, "WEBP", quality=checked_quality(options), icc_profile=icc.srgb_profile(), exif=exif, xmp=xmp
    )
    return [*notes, *remarks]
