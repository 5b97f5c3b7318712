"""Boxes of the ISO base media file format (ISO/IEC 14496-12), which AVIF and JPEG XL share, and items of AVIF."""

import struct
from collections.abc import Iterator

_SHORT_ILOC = b"\0\0\0\0\x44\0"  # version 0, offsets and lengths of 4 bytes, no base: what libavif writes
_XMP_TYPE = b"application/rdf+xml\0"


def boxes(data: bytes, place: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind and place of the content of each box, up to the first that is damaged."""
    end = len(data) if end is None else end
    while place + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 16 if size == 1 else 8
        if size == 1 and place + 16 <= end:
            size = struct.unpack_from(">Q", data, place + 8)[0]
        size = end - place if size == 0 else size
        if size < head or place + size > end:
            return
        yield kind, place + head, place + size
        place += size


def box(kind: bytes, content: bytes) -> bytes:
    """A box."""
    return struct.pack(">I4s", len(content) + 8, kind) + content


def with_items(avif: bytes, exif: bytes, xmp: bytes) -> bytes:
    """An AVIF file of one picture, as libavif writes it, with its EXIF block and XMP packet as further items.

    ValueError for a file that is laid out in another way.
    """
    new = [(kind, content) for kind, content in ((b"Exif", exif and bytes(4) + exif), (b"mime", xmp)) if content]
    start, end = next(((a, b) for kind, a, b in boxes(avif) if kind == b"meta"), (0, 0))
    parts = {kind: avif[a:b] for kind, a, b in boxes(avif, start + 4, end)}
    locations = parts.get(b"iloc", b"")
    if not new or not locations.startswith(_SHORT_ILOC) or b"iref" in parts or b"pitm" not in parts:
        raise ValueError("this AVIF file is not laid out as expected")
    count = struct.unpack_from(">H", parts[b"iinf"], 4)[0]
    numbers = range(count + 1, count + 1 + len(new))
    parts[b"iinf"] = struct.pack(">IH", 0, count + len(new)) + parts[b"iinf"][6:]
    for number, (kind, _) in zip(numbers, new, strict=True):
        described = b"\0" + (_XMP_TYPE if kind == b"mime" else b"")
        parts[b"iinf"] += box(b"infe", struct.pack(">IHH4s", 2 << 24, number, 0, kind) + described)
    primary = struct.unpack_from(">H", parts[b"pitm"], 4)[0]
    links = b"".join(box(b"cdsc", struct.pack(">HHH", number, 1, primary)) for number in numbers)
    parts[b"iref"] = bytes(4) + links
    grown = sum(len(box(kind, content)) for kind, content in parts.items()) + 14 * len(new) - (end - start - 4)
    entries = bytearray(locations[8:])
    for place in range(0, len(entries), 14):  # item, data reference, number of extents, offset, length
        number, reference, extents, offset, length = struct.unpack_from(">HHHII", entries, place)
        if extents != 1:
            raise ValueError("this AVIF file is not laid out as expected")
        struct.pack_into(">HHHII", entries, place, number, reference, 1, offset + grown, length)
    offset = len(avif) + grown + 8
    for number, (_, content) in zip(numbers, new, strict=True):
        entries += struct.pack(">HHHII", number, 0, 1, offset, len(content))
        offset += len(content)
    parts[b"iloc"] = _SHORT_ILOC + struct.pack(">H", count + len(new)) + bytes(entries)
    meta = box(b"meta", bytes(4) + b"".join(box(kind, content) for kind, content in parts.items()))
    return avif[: start - 8] + meta + avif[end:] + box(b"mdat", b"".join(content for _, content in new))
