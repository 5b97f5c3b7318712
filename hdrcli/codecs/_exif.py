"""EXIF blocks (CIPA DC-008, EXIF 3.0): what they say about a picture, and the block that goes into a written one.

A block is a TIFF structure without the "Exif\\0\\0" that JPEG puts before it.
"""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from hdrcli import __version__
from hdrcli.codecs import _ifd
from hdrcli.codecs._ifd import LONG, SHORT, Directory, Entry

_PREFIX = b"Exif\0\0"
_SOFTWARE, _INTEROP_IFD = 305, 40965
_COLOR_SPACE, _PIXEL_X, _PIXEL_Y, _MAKER_NOTE = 40961, 40962, 40963, 37500
_SRGB = 1
_IFD = 13  # the TIFF type of a pointer, next to LONG

# What the primary directory says about the scene, not about how a certain file stores its pixels.
_KEPT = frozenset(
    {
        270,  # ImageDescription
        271,  # Make
        272,  # Model
        282,  # XResolution
        283,  # YResolution
        296,  # ResolutionUnit
        306,  # DateTime
        315,  # Artist
        316,  # HostComputer
        18246,  # Rating
        33432,  # Copyright
        *range(40091, 40096),  # XPTitle to XPSubject
    }
)

# By tag, the names of OpenEXR's standard attributes
_MAIN_TEXTS = {271: "cameraMake", 272: "cameraModel", 315: "owner"}
_EXIF_TEXTS = {36867: "capDate", 42035: "lensMake", 42036: "lensModel"}
_EXIF_NUMBERS = {33434: "expTime", 33437: "aperture", 34855: "isoSpeed", 37386: "nominalFocalLength"}

# What brings the stored pixels upright, by the Orientation tag.
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}


def stripped(block: bytes) -> bytes:
    """The block without the prefix, which some formats store and others do not."""
    return block.removeprefix(_PREFIX)


def orientation(block: bytes) -> int:
    """How the stored pixels lie, 1 to 8; 1 (upright) where the block does not say."""
    values = _ifd.read(block).get(_ifd.ORIENTATION, Entry(SHORT, (1,))).values
    return int(values[0]) if values and values[0] in _UPRIGHT else 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) pixels turned and mirrored as the Orientation tag asks; a view."""
    return _UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels


def turned(orientation: int) -> bytes:
    """A block that says nothing but how the stored pixels lie."""
    return _ifd.build({_ifd.ORIENTATION: Entry(SHORT, (orientation,))}, {})


def says_adobe_rgb(block: bytes) -> bool:
    """Whether the camera wrote Adobe RGB, which DCF 2.0 marks by interoperability index R03 and not by a profile."""
    interop = _child(block, _ifd.EXIF_IFD).get(_INTEROP_IFD)
    if interop is None or not _points(interop):
        return False
    return _ifd.read(_with_first_directory_at(block, int(interop.values[0]))).get(1, _ifd.text("")).text == "R03"


def from_tiff(data: bytes) -> bytes:
    """The EXIF block of a TIFF-structured file (TIFF, DNG and most raw files), empty where it says nothing."""
    main = {tag: entry for tag, entry in _ifd.read(data).items() if tag in _KEPT | {_ifd.ORIENTATION, _SOFTWARE}}
    children = below(data)
    return _ifd.build(main, children) if main or children else b""


def for_output(block: bytes, width: int, height: int, *, limit: int = 2**31) -> tuple[bytes, list[str]]:
    """The block for a picture of this program: upright, sRGB, its own size and software, no thumbnail.

    block: what came with the input, may be empty or damaged. limit: bytes that the format can hold.
    Returns the new block and notes on what had to be left out.
    """
    main = {tag: entry for tag, entry in _ifd.read(block).items() if tag in _KEPT}
    children = below(block)
    main[_ifd.ORIENTATION] = Entry(SHORT, (1,))
    main[_SOFTWARE] = _ifd.text(f"hdr {__version__}")
    if exif := children.get(_ifd.EXIF_IFD):
        exif.pop(_INTEROP_IFD, None)
        exif |= {
            _COLOR_SPACE: Entry(SHORT, (_SRGB,)),
            _PIXEL_X: Entry(LONG, (width,)),
            _PIXEL_Y: Entry(LONG, (height,)),
        }
    built = _ifd.build(main, children)
    if len(built) <= limit:
        return built, []
    children.get(_ifd.EXIF_IFD, {}).pop(_MAKER_NOTE, None)
    built = _ifd.build(main, children)
    if len(built) <= limit:
        return built, ["the camera maker's private EXIF note is too long for this format and was left out"]
    return for_output(b"", width, height)[0], ["the EXIF block is too long for this format and was left out"]


def as_attributes(block: bytes) -> dict[str, str | float]:
    """What a block says of the camera, the exposure, the date and the place, by the names of OpenEXR's attributes."""
    main, children = _ifd.read(block), below(block)
    found: dict[str, str | float] = {}
    for directory, names in ((main, _MAIN_TEXTS), (children.get(_ifd.EXIF_IFD, {}), _EXIF_TEXTS)):
        found |= {name: directory[tag].text for tag, name in names.items() if tag in directory and directory[tag].text}
    for tag, name in _EXIF_NUMBERS.items():
        entry = children.get(_ifd.EXIF_IFD, {}).get(tag)
        if entry and (value := _number(entry)) is not None:
            found[name] = value
    place = children.get(_ifd.GPS_IFD, {})
    for reference, tag, name in ((1, 2, "latitude"), (3, 4, "longitude")):
        if tag in place and (degrees := _degrees(place[tag])) is not None:
            found[name] = -degrees if place.get(reference, _ifd.text("")).text in ("S", "W") else degrees
    return found


def _number(entry: Entry) -> float | None:
    if entry.kind in (_ifd.RATIONAL, _ifd.SRATIONAL):
        return entry.values[0] / entry.values[1] if len(entry.values) >= 2 and entry.values[1] else None
    return float(entry.values[0]) if entry.values else None


def _degrees(entry: Entry) -> float | None:
    """Of three rationals: degrees, minutes and seconds."""
    if entry.kind != _ifd.RATIONAL or len(entry.values) != 6 or not all(entry.values[1::2]):
        return None
    return float(sum(entry.values[i] / entry.values[i + 1] / 60 ** (i // 2) for i in (0, 2, 4)))


def below(block: bytes) -> dict[int, Directory]:
    """The EXIF and GPS directories of a block, by the tags that point to them."""
    children = {tag: _child(block, tag) for tag in (_ifd.EXIF_IFD, _ifd.GPS_IFD)}
    return {tag: child for tag, child in children.items() if child}


def _child(block: bytes, tag: int) -> Directory:
    pointer = _ifd.read(block).get(tag)
    return _ifd.read(block, tag) if pointer and _points(pointer) else {}


def _points(entry: Entry) -> bool:
    return entry.kind in (LONG, _IFD) and len(entry.values) == 1


def _with_first_directory_at(block: bytes, offset: int) -> bytes:
    order = "little" if block.startswith(b"II") else "big"
    return block[:4] + (offset % 2**32).to_bytes(4, order) + block[8:]  # type: ignore[arg-type]
