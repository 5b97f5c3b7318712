"""The header of a JPEG XL codestream (ISO/IEC 18181-1, annexes A and D), as far as it says what the samples mean."""

from typing import NamedTuple

from hdrcli.color import BT709, BT2020, DISPLAY_P3, Primaries

_TRANSFERS = {1: "srgb", 8: "linear", 13: "srgb", 16: "pq"}  # BT.709 is shown like sRGB
_PRIMARIES = {1: BT709, 9: BT2020, 11: DISPLAY_P3}
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))

# ImageMetadata and CustomTransformData, first bit first, of 16-bit RGB without loss and without anything else.
_SAMPLES = "0" + "11111100" + "0" + "00" + "0"  # integers of 16 bits, no 16-bit buffers, no extra channels, no XYB
_LINEAR_16 = "00" + _SAMPLES + "00" + "00" + "10" + "10" + "0" + "010110" + "10" + "00" + "1"
_PQ_16 = (
    "01000000"  # not all default; extra fields: upright, no intrinsic size, no preview, no animation
    + _SAMPLES
    + ("00" + "00" + "10" + "011110" + "0" + "010111" + "10")  # RGB, D65, BT.2100, no gamma, PQ, relative
    + ("0" + f"{0x70E2:016b}"[::-1] + 16 * "0" + "0" + 16 * "0")  # tone mapping: intensity target 10,000 cd/m2
    + ("00" + "1")  # no extensions, default transforms
)

_NO_COLOUR = 3  # XYB is 2, unknown 3


class Header(NamedTuple):
    """transfer: "srgb", "linear", "pq" or "" for others. name: of the colour space. notes: what had to be guessed."""

    width: int
    height: int
    bits: int
    transfer: str
    primaries: Primaries
    name: str
    notes: tuple[str, ...] = ()


def read(codestream: bytes) -> Header:
    """The header; IndexError where it is cut short, ValueError where it is none."""
    if not codestream.startswith(b"\xff\x0a"):
        raise ValueError("no JPEG XL codestream")
    bits = _Bits(codestream[2:66])
    width, height = _size(bits)
    if bits.flag():  # all default
        return Header(width, height, 8, "srgb", BT709, "sRGB")
    if bits.flag():  # extra fields
        bits.number(3)  # orientation, which the decoder applies
        if bits.flag():
            _size(bits)
        if bits.flag() or bits.flag():
            return Header(width, height, 8, "srgb", BT709, "sRGB", ("the colour encoding was taken for sRGB",))
    floats = bits.flag()
    depth = bits.choice((32, 0), (16, 0), (24, 0), (1, 6)) if floats else bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    if floats:
        bits.number(4)  # exponent
    bits.flag()  # whether 16 bits are enough to decode
    for _ in range(bits.choice((0, 0), (1, 0), (2, 4), (1, 12))):
        if not bits.flag():
            return Header(width, height, depth, "srgb", BT709, "sRGB", ("the colour encoding was taken for sRGB",))
    bits.flag()  # XYB
    return _colour(bits, Header(width, height, depth, "srgb", BT709, "sRGB"))


def as_pq(codestream: bytes) -> bytes:
    """A codestream of 16-bit samples that the encoder marked as linear BT.709, marked as PQ in BT.2020 instead.

    For encoders that cannot be told. ValueError for a codestream with another header.
    """
    bits = _Bits(codestream[2:66])
    start = bits.left
    _size(bits)
    size = start - bits.left
    if bits.number(len(_LINEAR_16)) != int(_LINEAR_16[::-1], 2):
        raise ValueError("this JPEG XL header is not the expected one")
    used = -(-(start - bits.left) // 8)
    kept = int.from_bytes(codestream[2:66], "little") & ((1 << size) - 1)
    header = kept | int(_PQ_16[::-1], 2) << size
    return codestream[:2] + header.to_bytes(-(-(size + len(_PQ_16)) // 8), "little") + codestream[2 + used :]


def _colour(bits: "_Bits", plain: Header) -> Header:
    if bits.flag():  # all default
        return plain
    profile, space = bits.flag(), bits.enumerated()
    if profile or space >= _NO_COLOUR:
        return plain._replace(notes=("the ICC profile of a JPEG XL file is not read: taken for sRGB",))
    white = bits.enumerated()
    primaries = bits.enumerated() if white == 1 and space == 0 else 1
    if white != 1 or primaries not in _PRIMARIES or bits.flag():  # a white or primaries of its own, a gamma
        return plain._replace(transfer="")
    known, transfer = _PRIMARIES[primaries], _TRANSFERS.get(bits.enumerated(), "")
    plainly = known == BT709 and transfer == "srgb"
    return plain._replace(transfer=transfer, primaries=known, name="sRGB" if plainly else f"{known.name} {transfer}")


def _size(bits: "_Bits") -> tuple[int, int]:
    small = bits.flag()

    def side() -> int:
        return 8 * (bits.number(5) + 1) if small else bits.choice((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.number(3)
    if ratio == 0:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


class _Bits:
    """Numbers of a bit stream, least significant bit first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def number(self, count: int) -> int:
        if count > self.left:
            raise IndexError("the header is cut short")
        taken = self.value & ((1 << count) - 1)
        self.value >>= count
        self.left -= count
        return taken

    def flag(self) -> bool:
        return bool(self.number(1))

    def choice(self, *offsets_and_bits: tuple[int, int]) -> int:
        """U32: two bits choose an offset and the number of bits that are added to it."""
        offset, count = offsets_and_bits[self.number(2)]
        return offset + self.number(count)

    def enumerated(self) -> int:
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))
