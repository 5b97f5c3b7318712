"""Lens shading as DNG files describe it: GainMap opcodes of OpcodeList2 (Adobe DNG specification 1.4, chapter 7)."""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hdrcli.codecs import _ifd
from hdrcli.color import Float32, Float64

OPCODE_LIST_2 = 51009

_GAIN_MAP = 9
_HEAD = struct.Struct(">4I")  # opcode, DNG version, flags, size of what follows
_FIELDS = struct.Struct(">10I4dI")
_VERSION = 0x01030000
_MOST_POINTS = 1 << 20
_COLOUR_FILTER_ARRAY = 32803


class ShadingMap(NamedTuple):
    """Gains for every `pitch`th row and column of the area (top, left, bottom, right), in pixels of the active area.

    origin, spacing: (vertical, horizontal) place of the first point and distance of the points, in parts of the whole
    active area. gains: (V, H) float32, interpolated linearly between points and constant beyond them.
    """

    area: tuple[int, int, int, int]
    pitch: tuple[int, int]
    origin: tuple[float, float]
    spacing: tuple[float, float]
    gains: Float32


def of_mosaic(tiff: bytes) -> list[ShadingMap]:
    """The maps of the first Bayer mosaic in a DNG file, given its TIFF structure; empty where there are none."""
    for directory in _ifd.directories(tiff):
        shown_as = directory.get(262)
        if shown_as and shown_as.values == (_COLOUR_FILTER_ARRAY,) and OPCODE_LIST_2 in directory:
            return list(parse(bytes(int(value) & 255 for value in directory[OPCODE_LIST_2].values)))
    return []


def parse(opcodes: bytes) -> Iterator[ShadingMap]:
    """The gain maps of an opcode list; other opcodes, and maps that make no sense, are passed over."""
    place = 4
    while place + _HEAD.size <= len(opcodes):
        opcode, _, _, size = _HEAD.unpack_from(opcodes, place)
        content = opcodes[place + _HEAD.size : place + _HEAD.size + size]
        place += _HEAD.size + size
        if opcode != _GAIN_MAP or len(content) < _FIELDS.size:
            continue
        top, left, bottom, right, _, _, *rest = _FIELDS.unpack_from(content)
        row_pitch, column_pitch, down, across, step_v, step_h, origin_v, origin_h, planes = rest
        points = down * across * planes
        usable = 0 < points <= _MOST_POINTS and len(content) == _FIELDS.size + 4 * points and row_pitch and column_pitch
        gains = np.frombuffer(content, ">f4", points if usable else 0, _FIELDS.size)
        if usable and np.isfinite(gains).all() and gains.min() > 0 and step_v >= 0 and step_h >= 0:
            first = gains.reshape(down, across, planes)[..., 0].astype(np.float32)
            yield ShadingMap(
                (top, left, bottom, right), (row_pitch, column_pitch), (origin_v, origin_h), (step_v, step_h), first
            )


def packed(maps: Sequence[ShadingMap]) -> bytes:
    """The opcode list of these maps."""
    parts = [struct.pack(">I", len(maps))]
    for item in maps:
        down, across = item.gains.shape
        fields = _FIELDS.pack(*item.area, 0, 1, *item.pitch, down, across, *item.spacing, *item.origin, 1)
        content = fields + item.gains.astype(">f4").tobytes()
        parts.append(_HEAD.pack(_GAIN_MAP, _VERSION, 0, len(content)) + content)
    return b"".join(parts)


def gains(maps: Sequence[ShadingMap], size: tuple[int, int]) -> Float32:
    """(H, W) factors of all maps together for an active area of that size."""
    product = np.ones(size, np.float32)
    for item in maps:
        top, left, bottom, right = item.area
        rows = np.arange(size[0])[top : bottom : item.pitch[0]]
        columns = np.arange(size[1])[left : right : item.pitch[1]]
        places = _places(columns, size[1], item, 1)
        across = np.stack([np.interp(places, np.arange(line.size), line) for line in item.gains])
        places = _places(rows, size[0], item, 0)
        lower = np.clip(places.astype(int), 0, len(across) - 1)
        upper = np.minimum(lower + 1, len(across) - 1)
        share = np.clip(places - lower, 0, 1)[:, None]
        product[np.ix_(rows, columns)] *= (across[lower] * (1 - share) + across[upper] * share).astype(np.float32)
    return product


def _places(pixels: np.ndarray[tuple[int], np.dtype[np.int64]], size: int, item: ShadingMap, axis: int) -> Float64:
    """Where the centres of pixels lie along an axis, counted in points of the map."""
    if item.spacing[axis] == 0:
        return np.zeros(pixels.size)
    return ((pixels + 0.5) / size - item.origin[axis]) / item.spacing[axis]
