"""Picture files and ICC profiles made by hand, from their standards, so that no library vouches for itself."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from hdrcli.image import Image

# ---------------------------------------------------------------- PNG

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def png(samples: NDArray, colour: int, bits: int, **chunks: bytes) -> bytes:
    """(H, W) or (H, W, channels) samples as a PNG; `chunks` go before the pixels."""
    height, width = samples.shape[:2]
    flat = samples.reshape(height, -1)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        digits = np.unpackbits(flat.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in digits]
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(kind.encode(), data) for kind, data in chunks.items())]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", body), chunk(b"IEND", b"")])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def iccp(profile: bytes) -> bytes:
    return b"profile\0\0" + zlib.compress(profile)


# ---------------------------------------------------------------- TIFF and EXIF

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
Tags = dict[int, tuple[int, tuple[int, ...]]]


def tiff(
    samples: NDArray, photometric: int, *, order: str = "<", planar: int = 1, **more: tuple[int, ...] | bytes
) -> bytes:
    """(H, W) or (H, W, channels) samples as an uncompressed TIFF of one strip (a strip a plane where planar is 2).

    more: further tags, named like t274, and their values; a bytes value becomes UNDEFINED.
    """
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    stored = samples.astype(samples.dtype.newbyteorder(order))
    planes = [stored[..., i] for i in range(channels)] if planar == 2 else [stored]
    strips = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    sample_format = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    tags = {
        256: (LONG, (width,)),
        257: (LONG, (height,)),
        258: (SHORT, (samples.dtype.itemsize * 8,) * channels),
        259: (SHORT, (1,)),
        262: (SHORT, (photometric,)),
        273: (LONG, (0,) * len(strips)),
        277: (SHORT, (channels,)),
        278: (LONG, (height,)),
        279: (LONG, tuple(len(strip) for strip in strips)),
        284: (SHORT, (planar,)),
        339: (SHORT, (sample_format,) * channels),
    }
    for name, values in more.items():
        kind = UNDEFINED if isinstance(values, bytes) else (SHORT if max(values) < 65536 else LONG)
        tags[int(name[1:])] = (kind, tuple(values))
    size = len(_directory(tags, order))
    starts = np.cumsum([size, *(len(strip) for strip in strips)])[:-1]
    tags[273] = (LONG, tuple(int(start) for start in starts))
    return _directory(tags, order) + b"".join(strips)


def exif(main: Tags, children: dict[int, Tags], order: str = "<") -> bytes:
    """An EXIF block: the primary directory and, by the tag that points there, those below it (not nested further)."""
    main = main | dict.fromkeys(children, (LONG, (0,)))
    place = len(_directory(main, order))
    bodies = b""
    for tag, child in children.items():
        main[tag] = (LONG, (place + len(bodies),))
        bodies += _directory(child, order, place + len(bodies) - 8)[8:]
    return _directory(main, order) + bodies


def ascii_tag(text: str) -> tuple[int, tuple[int, ...]]:
    return ASCII, (*text.encode(), 0)


def _directory(tags: Tags, order: str, shift: int = 0) -> bytes:
    """A TIFF header and a directory, which will lie `shift` bytes further on."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    fields, values = b"", b""
    first = shift + 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        code = {ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "I", UNDEFINED: "B"}[kind]
        packed = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(packed) > 4:
            place = struct.pack(order + "I", first + len(values))
            values += packed + b"\0" * (len(packed) % 2)
            packed = place
        count = len(numbers) // 2 if kind == RATIONAL else len(numbers)
        fields += struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\0")
    return head + struct.pack(order + "H", len(tags)) + fields + b"\0\0\0\0" + values


# ---------------------------------------------------------------- Radiance


def rgbe(pixels: NDArray[np.uint8], size_line: str = "", header: str = "") -> bytes:
    """(H, W, 4) mantissas and exponents as an uncompressed Radiance file; OpenCV wants lines of 8 to 32767 pixels."""
    height, width = pixels.shape[:2]
    text = f"#?RADIANCE\n{header}FORMAT=32-bit_rle_rgbe\n\n{size_line or f'-Y {height} +X {width}'}\n"
    return text.encode() + np.ascontiguousarray(pixels).tobytes()


# ---------------------------------------------------------------- ICC

SRGB_CURVE = struct.pack(
    ">4s4xHxx5i", b"para", 3, *(round(n * 65536) for n in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)
P3_COLUMNS = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))  # Apple, D50
ADOBE_COLUMNS = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))  # Adobe, D50
SRGB_COLUMNS = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))  # HP, D50


def gamma_curve(gamma: float) -> bytes:
    return struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256))


def table_curve(values: NDArray) -> bytes:
    return struct.pack(">4s4xI", b"curv", len(values)) + np.round(values * 65535).astype(">u2").tobytes()


def icc_rgb(description: str, columns: tuple[tuple[float, ...], ...], curve: bytes) -> bytes:
    tags = {b"desc": _desc(description), b"wtpt": _xyz((0.9642, 1.0, 0.8249))}
    for name, column in zip(b"rgb", columns, strict=True):
        tags |= {bytes([name]) + b"XYZ": _xyz(column), bytes([name]) + b"TRC": curve}
    return _icc(b"RGB ", b"XYZ ", b"mntr", tags)


def icc_grey(description: str, curve: bytes) -> bytes:
    tags = {b"desc": _desc(description), b"wtpt": _xyz((0.9642, 1.0, 0.8249)), b"kTRC": curve}
    return _icc(b"GRAY", b"XYZ ", b"mntr", tags)


def icc_tables(space: bytes, lab: NDArray) -> bytes:
    """A profile of one 8-bit table: `lab` holds L*, a*, b* at the corners of the ink or colour cube, (2, ..., 2, 3)."""
    inputs = lab.ndim - 1
    corners = np.round(np.stack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128], -1)).astype(np.uint8)
    straight = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * n for n in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = (
        struct.pack(">4s4xBBBx", b"mft1", inputs, 3, 2) + matrix + straight * inputs + corners.tobytes() + straight * 3
    )
    tags = {b"desc": _desc("tables"), b"wtpt": _xyz((0.9642, 1.0, 0.8249)), b"A2B0": table, b"A2B1": table}
    return _icc(space, b"Lab ", b"prtr" if space == b"CMYK" else b"mntr", tags)


def _icc(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    place = 128 + 4 + 12 * len(tags)
    table, bodies = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += struct.pack(">4sII", name, place + len(bodies), len(body))
        bodies += body + b"\0" * (-len(body) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s", place + len(bodies), b"test", 0x02400000, kind, space, connection, b"acsp")
    illuminant = struct.pack(">3i", 63190, 65536, 54061)
    return (head.ljust(68, b"\0") + illuminant).ljust(128, b"\0") + table + bodies


def _desc(text: str) -> bytes:
    return struct.pack(">4s4xI", b"desc", len(text) + 1) + text.encode() + b"\0" + bytes(78)


def _xyz(values: tuple[float, ...]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values))


# ---------------------------------------------------------------- by Pillow, and comparing


def saved(picture: Pillow.Image | np.ndarray, format: str, **options) -> bytes:
    """A file as Pillow writes it."""
    picture = Pillow.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def by_pillow(path: Path) -> Pillow.Image:
    """A file as Pillow reads it."""
    picture = Pillow.open(io.BytesIO(path.read_bytes()))
    picture.load()
    return picture


def same(image: Image, expected: np.ndarray, atol: float = 1e-6) -> None:
    """Whether an image holds the expected (H, W) or (H, W, 3) pixels."""
    expected = np.repeat(expected[..., None], 3, axis=-1) if expected.ndim == 2 else expected
    np.testing.assert_allclose(image.pixels, expected, atol=atol)
