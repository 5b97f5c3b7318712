"""The EXIF block of a developed picture, gathered from a camera RAW file (EXIF 3.0, CIPA DC-008)."""

from collections.abc import Mapping
from datetime import datetime

from hdrcli.codecs import _exif, _ifd
from hdrcli.codecs._ifd import SHORT, Entry

MAKE, MODEL = 271, 272
EXPOSURE_TIME, F_NUMBER, ISO, FOCAL_LENGTH = 33434, 33437, 34855, 37386

_MAIN = (MAKE, MODEL, 306, 315, 33432)  # and date, artist, copyright
_DATE_TAKEN, _LENS_MODEL, _MAKER_NOTE = 36867, 42036, 37500
_MARKS = (b"Exif\0\0", b"CMT1")  # before the EXIF block of an embedded JPEG; before the main directory of a CR3
_SEARCHED = 1 << 20  # bytes from the start


def tiff_part(data: bytes) -> bytes:
    """The TIFF structure that a RAW file is or carries near its start, empty where there is none."""
    if _ifd.read(data):
        return data
    for mark in _MARKS:
        place = data.find(mark, 0, _SEARCHED)
        if place >= 0 and _ifd.read(data[place + len(mark) :]):
            return data[place + len(mark) :]
    return b""


def collect(tiff: bytes, known: Mapping[int, float], taken: datetime | None, lens: str) -> bytes:
    """An EXIF block of what a RAW file says about camera, exposure, lens, date and place; Orientation 1.

    tiff: a TIFF structure, may be empty. known: what LibRaw read, by tag, 0 where unknown; used where `tiff` is silent,
    and so are the date and the lens. The maker note is left out: what it points to does not come along.
    Empty if nothing is known at all.
    """
    main = {tag: entry for tag, entry in _ifd.read(tiff).items() if tag in _MAIN}
    children = _exif.below(tiff)
    found = {tag: _ifd.rational(value) for tag, value in known.items() if value > 0}
    if known.get(ISO, 0) > 0:
        found[ISO] = Entry(SHORT, (min(round(known[ISO]), 65535),))
    if lens:
        found[_LENS_MODEL] = _ifd.text(lens)
    if taken is not None:
        found[_DATE_TAKEN] = _ifd.text(f"{taken:%Y:%m:%d %H:%M:%S}")
    found |= {tag: entry for tag, entry in children.get(_ifd.EXIF_IFD, {}).items() if tag != _MAKER_NOTE}
    if not main and not found and not children:
        return b""
    return _ifd.build(main | {_ifd.ORIENTATION: Entry(SHORT, (1,))}, children | {_ifd.EXIF_IFD: found})
