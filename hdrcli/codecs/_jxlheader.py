"""The header of a JPEG XL codestream (ISO/IEC 18181-1, annexes A and D), as far as it says what the samples mean."""

from typing import NamedTuple

from hdrcli.color import BT709, BT2020, DISPLAY_P3, Primaries

_TRANSFERS = {1: "srgb", 8: "linear", 13: "srgb", 16: "pq"}  # BT.709 is shown like sRGB
_PRIMARIES = {1: BT709, 9: BT2020, 11: DISPLAY_P3}
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
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
