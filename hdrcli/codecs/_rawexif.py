"""The EXIF block of a developed picture, gathered from a camera RAW file (EXIF 3.0, CIPA DC-008)."""

from collections.abc import Mapping
from datetime import datetime

from hdrcli.codecs import _ifd
from hdrcli.codecs._ifd import SHORT, Directory, Entry

MAKE, MODEL, DATE_TIME = 271, 272, 306
EXPOSURE_TIME, F_NUMBER, ISO, DATE_TAKEN, FOCAL_LENGTH, LENS_MODEL = 33434, 33437, 34855, 36867, 37386, 42036

_KEPT = {MAKE, MODEL, DATE_TIME, 315, 33432}  # and artist, copyright
_KEPT_BELOW = {
    *(EXPOSURE_TIME, F_NUMBER, ISO, DATE_TAKEN, FOCAL_LENGTH, LENS_MODEL),
    *(34850, 34864, 36868, 36880, 36881, 36882, 37380, 37381, 37382, 37383, 37384, 37385),
    *(37520, 37521, 37522, 41986, 41987, 41989, 41990, 42034, 42035),
}
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
    """An EXIF block with what viewers show: camera, exposure, lens, date, place; Orientation 1, no maker note.

    tiff: a TIFF structure, may be empty. known: what LibRaw read, by tag, 0 where unknown; used where `tiff` is silent,
    and so are the date and the lens. Empty if nothing is known at all.
    """
    main = _only(_ifd.read(tiff), _KEPT)
    below = {tag: _ifd.rational(value) for tag, value in known.items() if value > 0}
    if known.get(ISO, 0) > 0:
        below[ISO] = Entry(SHORT, (min(round(known[ISO]), 65535),))
    if lens:
        below[LENS_MODEL] = _ifd.text(lens)
    if taken is not None:
        below[DATE_TAKEN] = _ifd.text(f"{taken:%Y:%m:%d %H:%M:%S}")
    below |= _only(_ifd.read(tiff, _ifd.EXIF_IFD), _KEPT_BELOW)
    place = _ifd.read(tiff, _ifd.GPS_IFD)
    if not main and not below and not place:
        return b""
    children = {_ifd.EXIF_IFD: below} | ({_ifd.GPS_IFD: place} if place else {})
    return _ifd.build(main | {_ifd.ORIENTATION: Entry(SHORT, (1,))}, children)


def _only(directory: Directory, tags: set[int]) -> Directory:
    return {tag: entry for tag, entry in directory.items() if tag in tags and entry.values}
