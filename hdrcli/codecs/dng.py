"""Writes Bayer mosaics as uncompressed Digital Negatives (Adobe DNG specification 1.4)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdrcli.codecs import _ifd
from hdrcli.codecs._ifd import BYTE, LONG, SHORT, UNDEFINED, Entry
from hdrcli.codecs._shading import OPCODE_LIST_2, ShadingMap, packed
from hdrcli.color import Float64
from hdrcli.errors import WriteError
from hdrcli.files import atomic_write

PATTERNS = {"RGGB": (0, 1, 1, 2), "BGGR": (2, 1, 1, 0), "GRBG": (1, 0, 2, 1), "GBRG": (1, 2, 0, 1)}

_STRIP_OFFSETS = 273


def write(
    path: Path,
    counts: NDArray[np.uint16],
    *,
    pattern: str = "RGGB",
    black: int,
    white: int,
    as_shot_neutral: Sequence[float],
    color_matrix: Float64,
    orientation: int = 1,
    bits: int = 10,
    shading: Sequence[ShadingMap] = (),
    make: str = "hdrcli",
    model: str = "virtual camera",
) -> None:
    """Writes a sensor's counts as a DNG that LibRaw and other raw converters open.

    counts: (H, W) below 2^bits. pattern: colours of the top-left 2x2 block, row by row. as_shot_neutral: camera RGB of
    a white object, green 1 (the inverse of the white-balance multipliers). color_matrix: 3x3, CIE XYZ under D65 to
    camera RGB. orientation: EXIF, 1 to 8. bits: 8 to 16, packed without gaps, most significant bit first.
    shading: what takes the shading of the lens out again; the counts are written with it.
    WriteError where the counts do not fit or the file cannot be written.
    """
    if not 8 <= bits <= 16 or counts.ndim != 2 or int(counts.max(initial=0)) >= 2**bits:
        raise WriteError(
            f"{path} cannot hold {counts.ndim}-dimensional counts up to {counts.max(initial=0)} in {bits} bits",
            hint="give (height, width) counts and 8 to 16 bits that they fit into",
        )
    height, width = counts.shape
    strip = _packed(counts, bits)
    tags = {
        254: Entry(LONG, (0,)),  # NewSubfileType: the main picture
        256: Entry(LONG, (width,)),
        257: Entry(LONG, (height,)),
        258: Entry(SHORT, (bits,)),
        259: Entry(SHORT, (1,)),  # Compression: none
        262: Entry(SHORT, (32803,)),  # PhotometricInterpretation: colour filter array
        271: _ifd.text(make),
        272: _ifd.text(model),
        _STRIP_OFFSETS: Entry(LONG, (0,)),
        _ifd.ORIENTATION: Entry(SHORT, (orientation,)),
        277: Entry(SHORT, (1,)),  # SamplesPerPixel
        278: Entry(LONG, (height,)),  # RowsPerStrip
        279: Entry(LONG, (len(strip),)),  # StripByteCounts
        284: Entry(SHORT, (1,)),  # PlanarConfiguration
        305: _ifd.text("hdrcli"),
        33421: Entry(SHORT, (2, 2)),  # CFARepeatPatternDim
        33422: Entry(BYTE, PATTERNS[pattern]),
        50706: Entry(BYTE, (1, 4, 0, 0)),  # DNGVersion
        50707: Entry(BYTE, (1, 1, 0, 0)),  # DNGBackwardVersion
        50708: _ifd.text(f"{make} {model}"),  # UniqueCameraModel
        50710: Entry(BYTE, (0, 1, 2)),  # CFAPlaneColor: red, green, blue
        50711: Entry(SHORT, (1,)),  # CFALayout: rectangular
        50713: Entry(SHORT, (1, 1)),  # BlackLevelRepeatDim
        50714: Entry(LONG, (black,)),
        50717: Entry(LONG, (white,)),
        50721: _ifd.rational(*np.asarray(color_matrix).ravel(), signed=True),  # ColorMatrix1
        50728: _ifd.rational(*as_shot_neutral),
        50778: Entry(SHORT, (21,)),  # CalibrationIlluminant1: D65
    }
    if shading:
        tags[OPCODE_LIST_2] = Entry(UNDEFINED, tuple(packed(shading)))
    tags[_STRIP_OFFSETS] = Entry(LONG, (len(_ifd.build(tags, {})),))
    with atomic_write(path) as part:
        part.write_bytes(_ifd.build(tags, {}) + strip)


def _packed(counts: NDArray[np.uint16], bits: int) -> bytes:
    """(H, W) counts as TIFF samples: each row starts on a byte; 16-bit ones in the file's own, little-endian order."""
    if bits == 16:
        return counts.astype("<u2").tobytes()
    digits = np.unpackbits(counts.astype(">u2")[..., None].view(np.uint8), axis=-1)[..., 16 - bits :]
    return np.packbits(digits.reshape(len(counts), -1), axis=1).tobytes()
