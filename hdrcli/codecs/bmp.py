"""Windows bitmaps, read only."""

from PIL.BmpImagePlugin import BmpImageFile

from hdrcli.codecs import _display, _pillow
from hdrcli.image import Image


def read(data: bytes, name: str) -> Image:
    """An sRGB image."""
    picture = _pillow.opened(BmpImageFile, data, name)
    pixels, notes = _pillow.samples(picture, name)
    return _display.to_image(pixels, bits=8, notes=notes)
