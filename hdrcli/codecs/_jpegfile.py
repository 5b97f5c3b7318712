"""JPEG files as segments (ISO/IEC 10918-1, annex B): taken apart and put together without touching a coded picture."""

import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
APP1, APP2, COM = 0xE1, 0xE2, 0xFE
EXIF, XMP, ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
MPF, ISO_21496 = b"MPF\0", b"urn:iso:std:iso:ts:21496:-1\0"
MOST = 65533  # bytes of content that a segment holds

_SOS = 0xDA
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without content
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class Segment(NamedTuple):
    """A marker and the content that follows its length."""

    marker: int
    content: bytes

    @property
    def is_app(self) -> bool:
        return 0xE0 <= self.marker <= 0xEF

    def encoded(self) -> bytes:
        return struct.pack(">BBH", 0xFF, self.marker, len(self.content) + 2) + self.content


class Parts(NamedTuple):
    """A JPEG file. head: the segments before the first scan. picture: from that scan to the end of the picture.

    rest: what comes after, such as further pictures.
    """

    head: list[Segment]
    picture: bytes
    rest: bytes

    def content(self, marker: int, prefix: bytes) -> bytes:
        """What follows `prefix` in the first segment that begins with it, empty where there is none."""
        found = (s.content[len(prefix) :] for s in self.head if s.marker == marker and s.content.startswith(prefix))
        return next(found, b"")


def parts(data: bytes) -> Parts:
    """Takes a file apart that decoders take for a whole one; ValueError where its segments do not follow each other."""
    head: list[Segment] = []
    place = len(SOI)
    for segment, start, end in _segments(data, place):
        if segment.marker == _SOS:
            finish = _end_of_picture(data, end)
            return Parts(head, data[start:finish], data[finish:])
        head.append(segment)
    raise ValueError("there is no scan")


def joined(head: Iterable[Segment], picture: bytes) -> bytes:
    """The file of these segments, followed by a coded picture as `parts` gives it."""
    return b"".join([SOI, *(segment.encoded() for segment in head), picture])


def _segments(data: bytes, place: int) -> Iterator[tuple[Segment, int, int]]:
    """Segments with the places where they start and end."""
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise ValueError(f"there is no marker at byte {place}")
        marker = data[place + 1]
        if marker == 0xFF or marker in _ALONE:
            place += 1 if marker == 0xFF else 2
            continue
        size = struct.unpack_from(">H", data, place + 2)[0]
        end = place + 2 + size
        if size < 2 or end > len(data):
            raise ValueError(f"the segment at byte {place} is cut short")
        yield Segment(marker, data[place + 4 : end]), place, end
        place = end


def _end_of_picture(data: bytes, place: int) -> int:
    """The place after the end marker; coded data begin at `place`."""
    while found := _AFTER_SCAN.search(data, place):
        place = found.end()
        if data[found.start() : place] == EOI:
            return place
        if place + 2 <= len(data):  # tables or the next scan of a progressive picture
            place += struct.unpack_from(">H", data, place)[0]
    raise ValueError("there is no end marker")
