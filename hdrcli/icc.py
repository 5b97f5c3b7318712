"""ICC profiles (ICC.1:2022): from the RGB, grey or CMYK of a file to the program's own sRGB-encoded BT.709.

Profiles made of curves and a matrix are worked out here in floating point, so that 16-bit pictures keep their depth;
profiles made of tables go through LittleCMS (by Pillow), which has 8 bits per channel.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms

from hdrcli.color import (
    BT709,
    Float32,
    Float64,
    Primaries,
    Samples,
    adaptation,
    apply_matrix,
    rgb_to_rgb,
    rgb_to_xyz,
    srgb_decode,
    srgb_encode,
    store,
    white_xyz,
)

Curve = Callable[[Any], NDArray[Any]]

_D50 = np.array([0.9642, 1.0, 0.8249])  # the white of the profile connection space
_TO_BT709 = np.linalg.inv(rgb_to_xyz(BT709)) @ adaptation(_D50, white_xyz(BT709.white))
_OFF_WHITE, _TOO_BRIGHT = 0.3, 2.0  # beyond which a profile must be damaged
_TOLERANCE = 1e-3  # of linear light, before a colour counts as outside the gamut
_ROWS = 128  # rows that are converted at a time, to stay within the processor's cache


class ProfileError(ValueError):
    """The profile is damaged, or of a kind that does not describe pictures."""


@dataclass(frozen=True, eq=False)
class Profile:
    """What a file says its numbers mean.

    description: its name. space: "RGB", "GRAY", "CMYK", ... curves: code value [0, 1] to linear light per channel;
    empty when only tables are there. matrix: 3x3, linear RGB to linear BT.709. data: the profile itself.
    """

    description: str
    space: str
    curves: tuple[Curve, ...] = ()
    matrix: Float64 | None = None
    data: bytes = b""

    @property
    def is_srgb(self) -> bool:
        """Whether no colour would move by an 8-bit step; profiles of sRGB differ by half of one."""
        if not self.curves:
            return False
        steps = np.linspace(0, 1, 17 if len(self.curves) == 3 else 256, dtype=np.float32)
        grid = np.stack(np.meshgrid(*[steps] * len(self.curves), indexing="ij"), axis=-1)
        moved = srgb_encode(np.clip(self.linear(grid), 0, 1)) - grid
        return bool(np.abs(moved).max() < 1 / 255)

    def linear(self, values: NDArray[Any]) -> Float32:
        """(..., channels) code values to linear BT.709 (grey: one channel), in light relative to white.

        values: integers over their full range, or floats where 1.0 is the largest code value. Colours outside BT.709
        come out negative or above 1. For profiles that have curves.
        """
        return self._linear(values, [_for_samples(curve, values.dtype) for curve in self.curves])

    def srgb(self, values: NDArray[Any]) -> tuple[Samples, float]:
        """(H, W, channels) code values to those of sRGB, and the share of pixels outside its gamut of colours.

        Bytes become integers of 16 bits, all else float32 in [0, 1].

        For profiles that have curves.
        """
        encoded: Samples = np.empty(values.shape, np.uint16 if values.dtype == np.uint8 else np.float32)
        curves = [_for_samples(curve, values.dtype) for curve in self.curves]
        outside = 0
        for top in range(0, len(values), _ROWS):
            light = self._linear(values[top : top + _ROWS], curves)
            store(srgb_encode(np.clip(light, 0, 1)), encoded[top : top + _ROWS])
            if light.min() < -_TOLERANCE or light.max() > 1 + _TOLERANCE:
                beyond = (light < -_TOLERANCE) | (light > 1 + _TOLERANCE)
                outside += int(np.logical_or.reduce([beyond[..., i] for i in range(beyond.shape[-1])]).sum())
        return encoded, outside / max(1, values.shape[0] * values.shape[1])

    def _linear(self, values: NDArray[Any], curves: list[Callable[[NDArray[Any]], Float32]]) -> Float32:
        light = np.empty(values.shape, np.float32)
        for i, curve in enumerate(curves):
            light[..., i] = curve(values[..., i])
        return light if self.matrix is None else apply_matrix(self.matrix, light)


def parse(data: bytes) -> Profile:
    """The profile in `data`; ProfileError where it is damaged."""
    try:
        if len(data) < 132 or data[36:40] != b"acsp":
            raise ProfileError("no ICC profile header")
        tags = dict(_tags(data))
        return _parsed(data, tags)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ProfileError("a tag lies outside the profile") from error


def of_primaries(description: str, primaries: Primaries, gamma: float | None = None) -> Profile:
    """An RGB profile of given primaries whose light is the code value to the power of `gamma`, or that of sRGB."""
    curve: Curve = srgb_decode if gamma is None else (lambda x: np.maximum(x, 0) ** gamma)
    return Profile(description, "RGB", (curve,) * 3, rgb_to_rgb(primaries, BT709))


def through_tables(profile: Profile, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK bytes to sRGB code values, by LittleCMS.

    Relative colorimetric with black-point compensation, 8 bits per channel. ProfileError where LittleCMS refuses.
    """
    mode = "L" if values.ndim == 2 else ("RGB" if values.shape[2] == 3 else "CMYK")
    picture = Pillow.frombuffer(mode, values.shape[1::-1], np.ascontiguousarray(values).tobytes())
    try:
        converted = ImageCms.profileToProfile(
            picture,
            ImageCms.ImageCmsProfile(BytesIO(profile.data)),
            ImageCms.ImageCmsProfile(BytesIO(srgb_profile())),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ProfileError(str(error)) from error
    return np.asarray(converted)


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """The sRGB profile that goes into written files; the same bytes every time."""
    made: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + made[36:]  # not the time of writing


@lru_cache(maxsize=1)
def linear_profile() -> bytes:
    """A profile of linear light in BT.709 primaries (ICC version 2), for floating-point pictures."""
    white, name = struct.pack(">4s4x3i", b"XYZ ", *_fixed(_D50)), b"Linear BT.709"
    tags = {b"desc": struct.pack(">4s4xI", b"desc", len(name) + 1) + name + bytes(79), b"wtpt": white}
    tags[b"cprt"] = struct.pack(">4s4x", b"text") + b"CC0\0"
    columns = np.linalg.inv(_TO_BT709)
    for i, channel in enumerate((b"r", b"g", b"b")):
        tags[channel + b"XYZ"] = struct.pack(">4s4x3i", b"XYZ ", *_fixed(columns[:, i]))
        tags[channel + b"TRC"] = struct.pack(">4s4xI", b"curv", 0)  # no points: the code value itself
    place = 128 + 4 + 12 * len(tags)
    table, bodies = struct.pack(">I", len(tags)), b""
    for tag, body in tags.items():
        table += struct.pack(">4sII", tag, place + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = struct.pack(">I4xI4s4s4s", place + len(bodies), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp")
    return (head.ljust(68, b"\0") + struct.pack(">3i", *_fixed(_D50))).ljust(128, b"\0") + table + bodies


def _fixed(values: NDArray[Any]) -> list[int]:
    """s15Fixed16 numbers."""
    return [round(float(value) * 65536) for value in values]


def _parsed(data: bytes, tags: dict[bytes, bytes]) -> Profile:
    space = data[16:20].decode("ascii").strip()
    description = _text(tags.get(b"desc", b""))
    if space not in ("RGB", "GRAY", "CMYK"):
        raise ProfileError(f"it describes {space}")
    by_matrix = data[20:24] == b"XYZ " and b"A2B0" not in tags
    if space == "GRAY" and by_matrix and b"kTRC" in tags:
        return Profile(description, space, (_curve(tags[b"kTRC"]),), data=data)
    if space == "RGB" and by_matrix and {b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"} <= tags.keys():
        columns = np.array([_numbers(tags[tag], 8, 3) for tag in (b"rXYZ", b"gXYZ", b"bXYZ")]).T
        if np.abs(columns.sum(axis=1) - _D50).max() > _OFF_WHITE:
            raise ProfileError("its colours do not add up to white")
        curves = tuple(_curve(tags[tag]) for tag in (b"rTRC", b"gTRC", b"bTRC"))
        return Profile(description, space, curves, _TO_BT709 @ columns, data)
    return Profile(description, space, data=data)


def _tags(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for i in range(min(struct.unpack_from(">I", data, 128)[0], 256)):
        name, offset, size = struct.unpack_from(">4sII", data, 132 + 12 * i)
        yield name, data[offset : offset + size]


def _numbers(tag: bytes, offset: int, count: int) -> Float64:
    """s15Fixed16 numbers."""
    return np.array(struct.unpack_from(f">{count}i", tag, offset)) / 65536


def _curve(tag: bytes) -> Curve:
    curve = _stored_curve(tag)
    light = _light(curve, np.linspace(0, 1, 1025))
    if not np.isfinite(light).all() or np.abs(light).max() > _TOO_BRIGHT:
        raise ProfileError("a curve leaves the range of light")
    return curve


def _stored_curve(tag: bytes) -> Curve:
    if tag.startswith(b"curv"):
        count = struct.unpack_from(">I", tag, 8)[0]
        if count == 0:
            return lambda x: x
        if count == 1:
            gamma = struct.unpack_from(">H", tag, 12)[0] / 256
            return lambda x: np.maximum(x, 0) ** gamma
        if len(tag) < 12 + 2 * count:
            raise ProfileError("a curve is cut short")
        table = np.frombuffer(tag, ">u2", count, 12) / 65535
        return lambda x: np.asarray(np.interp(x, np.linspace(0, 1, count), table))
    if tag.startswith(b"para"):
        return _parametric_curve(struct.unpack_from(">H", tag, 8)[0], tag)
    raise ProfileError("a curve of unknown kind")


def _parametric_curve(kind: int, tag: bytes) -> Curve:
    """ICC.1:2022, table 68: y = (a x + b)^g + e from x = d on, y = c x + f below it."""
    counts = (1, 3, 4, 5, 7)
    if kind >= len(counts):
        raise ProfileError("a curve of unknown kind")
    given = [float(number) for number in _numbers(tag, 12, counts[kind])]
    g, a, b, c, d, e, f = given + [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0][len(given) :]
    if kind in (1, 2):  # y = (a x + b)^g + c from x = -b / a on, y = c below it
        if a == 0:
            raise ProfileError("a curve divides by zero")
        c, d, e, f = 0.0, -b / a, given[3] if kind == 2 else 0.0, given[3] if kind == 2 else 0.0
    return lambda x: np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)


def _for_samples(curve: Curve, dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], Float32]:
    """The curve as a function of samples of one type: a table for integers."""
    if dtype.kind != "u":
        return lambda values: _light(curve, values.astype(np.float64))
    levels = np.iinfo(dtype).max
    table = _light(curve, np.arange(levels + 1) / levels)
    return lambda values: table.take(values, mode="clip")  # which is faster than indexing, and nothing is to be clipped


def _light(curve: Curve, values: Float64) -> Float32:
    with np.errstate(all="ignore"):  # the branch of a curve that does not apply may overflow
        return curve(values).astype(np.float32)


def _text(tag: bytes) -> str:
    if tag.startswith(b"desc"):
        length = struct.unpack_from(">I", tag, 8)[0]
        return tag[12 : 12 + length].split(b"\0")[0].decode("latin-1").strip()
    if tag.startswith(b"mluc"):
        length, offset = struct.unpack_from(">II", tag, 20)
        return tag[offset : offset + length].decode("utf-16-be").strip("\0 ")
    return ""
