"""TIFF image file directories (TIFF 6.0, EXIF 3.0 and DNG 1.4 share them): reading and writing, no pixels."""

import struct
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SLONG, SRATIONAL = 1, 2, 3, 4, 5, 7, 9, 10

ORIENTATION, SUB_IFDS, EXIF_IFD, GPS_IFD = 274, 330, 34665, 34853

# struct codes by TIFF type: bytes, text, integers, rationals as two integers, floats
_FORMATS = dict(enumerate(("B", "B", "H", "I", "II", "b", "B", "h", "i", "ii", "f", "d", "I"), start=1))
_MAGIC = {42, 0x4F52, 0x5352, 0x55}  # TIFF, Olympus ORF (two of them), Panasonic RW2
_MOST_DIRECTORIES = 64


class Entry(NamedTuple):
    """One field of a directory.

    kind: the TIFF type. values: its numbers, flat; a rational is a numerator and a denominator, text is its bytes.
    """

    kind: int
    values: tuple[int | float, ...]

    @property
    def text(self) -> str:
        """The values as text, up to the first zero byte."""
        return bytes(int(value) & 255 for value in self.values).split(b"\0")[0].decode("utf-8", "replace").strip()


Directory: TypeAlias = dict[int, Entry]


def text(value: str) -> Entry:
    """An ASCII entry, with its closing zero byte."""
    return Entry(ASCII, (*value.encode("utf-8"), 0))


def rational(*values: float, signed: bool = False) -> Entry:
    """A rational entry with a resolution of 1e-6 of each value's order of magnitude or better."""
    pairs = []
    for value in values:
        denominator = 1_000_000 if abs(value) < 2000 else 1
        pairs += [round(value * denominator), denominator]
    return Entry(SRATIONAL if signed else RATIONAL, tuple(pairs))


def read(data: bytes, tag: int | None = None) -> Directory:
    """The first directory of a TIFF structure, or the one its pointer `tag` leads to; empty where there is none."""
    first = next(directories(data), {})
    if tag is None:
        return first
    return _parse(data, int(first[tag].values[0]))[0] if tag in first and first[tag].values else {}


def directories(data: bytes) -> Iterator[Directory]:
    """All image directories of a TIFF structure: the chain and the sub-directories; whatever is damaged is left out."""
    if len(data) < 8 or data[:2] not in (b"II", b"MM") or struct.unpack(_order(data) + "H", data[2:4])[0] not in _MAGIC:
        return
    waiting, seen = [struct.unpack(_order(data) + "I", data[4:8])[0]], set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        offset = waiting.pop(0)
        if offset in seen or not 8 <= offset < len(data):
            continue
        seen.add(offset)
        directory, following = _parse(data, offset)
        yield directory
        waiting += [following, *(int(place) for place in directory.get(SUB_IFDS, Entry(LONG, ())).values)]


def build(main: Directory, children: dict[int, Directory]) -> bytes:
    """A little-endian TIFF structure: `main` and, by the tag that points there, the directories below it."""
    main = main | {tag: Entry(LONG, (0,)) for tag in children}
    place = 8 + len(_encode(main, 8))
    bodies = b""
    for tag, child in children.items():
        main[tag] = Entry(LONG, (place + len(bodies),))
        bodies += _encode(child, place + len(bodies))
    return struct.pack("<2sHI", b"II", 42, 8) + _encode(main, 8) + bodies


def redirected(data: bytes, main: Directory) -> bytes:
    """The same file with `main` in place of its first directory; what that points to stays where it is."""
    place = len(data) + len(data) % 2
    return struct.pack("<2sHI", b"II", 42, place) + data[8:].ljust(place - 8, b"\0") + _encode(main, place)


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _parse(data: bytes, offset: int) -> tuple[Directory, int]:
    """The directory at `offset` and the offset of the next one, 0 at the end of the chain."""
    order = _order(data)
    if offset + 2 > len(data):
        return {}, 0
    count = struct.unpack_from(order + "H", data, offset)[0]
    directory: Directory = {}
    for place in range(offset + 2, min(offset + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, place)
        if kind not in _FORMATS:
            continue
        size = struct.calcsize("<" + _FORMATS[kind]) * number
        start = place + 8 if size <= 4 else struct.unpack_from(order + "I", data, place + 8)[0]
        if start + size <= len(data):
            directory[tag] = Entry(kind, struct.unpack_from(order + _FORMATS[kind] * number, data, start))
    end = offset + 2 + 12 * count
    return directory, struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0


def _encode(directory: Directory, offset: int) -> bytes:
    """A directory as it lies at `offset`, followed by the values that do not fit into its fields."""
    fields, overflow = b"", b""
    place = offset + 2 + 12 * len(directory) + 4
    for tag, entry in sorted(directory.items()):
        layout = _FORMATS[entry.kind]
        value = struct.pack("<" + layout * (len(entry.values) // len(layout)), *entry.values)
        if len(value) > 4:
            at = place + len(overflow)
            overflow += value + b"\0" * (len(value) % 2)
            value = struct.pack("<I", at)
        fields += struct.pack("<HHI", tag, entry.kind, len(entry.values) // len(layout)) + value.ljust(4, b"\0")
    return struct.pack("<H", len(directory)) + fields + struct.pack("<I", 0) + overflow
