"""Radiance pictures (Ward, "Real Pixels", Graphics Gems II, 1991): 8-bit mantissas with one shared exponent."""

import re
from pathlib import Path

import numpy as np

from hdrcli import __version__
from hdrcli.codecs import WriteOptions, _display, _linear, _opencv
from hdrcli.color import BT709, Float32, Primaries
from hdrcli.errors import ReadError
from hdrcli.image import Image, Metadata
from hdrcli.limits import check_size

_SMALLEST = np.float32(1e-32)  # what OpenCV takes for black
_LARGEST = 255 * 2.0**119  # exponents are bytes
_ROWS = 128  # rows that are worked on at a time, to stay within the processor's cache
_SIZE = re.compile(rb"([-+])([XY]) +(\d{1,9}) +([-+])([XY]) +(\d{1,9})\s*\Z")

_MADE = re.compile(rb"^(hdr:[\w.-]+)=(.*)$", re.MULTILINE)  # how an earlier run of this program made the picture
_NUMBER = rb"\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d{1,2})?)"


def read(data: bytes, name: str) -> Image:
    """A linear image, its rows and columns turned as the file's resolution line says."""
    header, separator, rest = data.partition(b"\n\n")
    size_line, newline, pixels = rest.partition(b"\n")
    size = _SIZE.match(size_line)
    if not (separator and newline and size) or size[2] == size[5]:
        raise _display.damaged(name, "its header does not end in a size")
    if b"xyze" in header:
        raise ReadError(f"{name} holds XYZ instead of RGB pixels", hint="convert it with Radiance's ra_xyze -r")
    rows, columns = int(size[3]), int(size[6])
    check_size(rows, columns, name)
    plain = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (rows, columns) + pixels
    light = _opencv.decode(plain, name)
    light = light[:: 1 if size[1] == (b"-" if size[2] == b"Y" else b"+") else -1]
    light = light[:, :: 1 if size[4] == (b"-" if size[5] == b"Y" else b"+") else -1]
    upright = light if size[2] == b"Y" else light.swapaxes(0, 1)
    made = {key.decode(): value.decode("utf-8", "replace") for key, value in _MADE.findall(header)}
    return _linear.to_image(upright, Metadata(bits=8, extra=made), primaries=_primaries(header))


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """Run-length encoded RGBE, rounded to nearest; negative light, which the format cannot hold, becomes 0."""
    _display.require_bt709(image, "hdr")
    light, notes = _linear.clipped(image.pixels, 0, _LARGEST)
    pixels = _opencv.encode(".hdr", _quantised(light)).partition(b"\n\n")[2]
    lines = ["#?RADIANCE"]
    if options.metadata:
        lines.append(f"SOFTWARE=hdr {__version__}")
        lines += [f"{key}={' '.join(value.split())}" for key, value in image.meta.extra.items()]
    path.write_bytes("\n".join([*lines, "FORMAT=32-bit_rle_rgbe", "", ""]).encode() + pixels)
    return notes


def _quantised(light: Float32) -> Float32:
    """Light whose mantissas, cut off as OpenCV's encoder does, are those of the nearest storable numbers.

    A pixel is stored as three bytes m and an exponent e for m * 2^(e - 8), 128 <= largest m <= 255.
    """
    halfway = np.empty_like(light)
    for top in range(0, len(light), _ROWS):
        block = light[top : top + _ROWS]
        largest = np.maximum.reduce([block[..., 0], block[..., 1], block[..., 2]], initial=_SMALLEST)[..., None]
        exponent = np.frexp(largest)[1]
        exponent += np.rint(np.ldexp(largest, 8 - exponent)) > 255
        step = np.ldexp(np.float32(1), exponent - 8)
        halfway[top : top + _ROWS] = (np.rint(block / step) + np.float32(0.5)) * step
    return halfway


def _primaries(header: bytes) -> Primaries:
    """The chromaticities of a PRIMARIES line: red, green, blue and white; BT.709 where there is none."""
    line = re.search(rb"^PRIMARIES=" + _NUMBER * 8 + rb"\s*$", header, re.MULTILINE)
    if line is None:
        return BT709
    return _linear.chromaticities("Radiance primaries", [float(number) for number in line.groups()])
