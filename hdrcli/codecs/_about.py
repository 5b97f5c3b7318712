"""What goes into a written file beside its pixels."""

from typing import NamedTuple

from hdrcli.codecs import WriteOptions, _exif, _xmp
from hdrcli.image import Image


class About(NamedTuple):
    """EXIF block and XMP packet for an output, empty where there is nothing to say; what had to be left out."""

    exif: bytes
    xmp: bytes
    notes: list[str]


def blocks(image: Image, options: WriteOptions, *, most_exif: int = 2**31, most_xmp: int = 2**31) -> About:
    """The user's metadata, made to fit an upright picture of this program, with how it was made.

    most_exif, most_xmp: bytes that the format can hold.
    """
    if not options.metadata:
        return About(b"", b"", [])
    exif, notes = _exif.for_output(image.meta.exif, image.width, image.height, limit=most_exif)
    xmp = _xmp.for_output(image.meta.xmp, image.meta.extra)
    if len(xmp) > most_xmp:
        xmp = _xmp.for_output(b"", image.meta.extra)
        notes.append("the XMP packet is too long for this format and was left out")
    return About(exif, xmp, notes)
