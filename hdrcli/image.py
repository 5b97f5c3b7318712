"""The only pixel type that crosses module borders: an RGB picture that knows what its numbers mean."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import numpy as np

from hdrcli.color import BT709, Float32, Floats, Primaries, Samples, srgb_decode, srgb_encode, to_float
from hdrcli.errors import WrongStateError


class Transfer(StrEnum):
    """How pixel numbers relate to light."""

    LINEAR = "linear"  # proportional to light, [0, inf)
    SRGB = "srgb"  # IEC 61966-2-1 code values, [0, 1]


_FLOATS = (np.float32, np.float16)
_KINDS = {Transfer.LINEAR: _FLOATS, Transfer.SRGB: (*_FLOATS, np.uint8, np.uint16)}


@dataclass(frozen=True, slots=True)
class Metadata:
    """What travels with the pixels: EXIF block, camera, where it came from, what was done to it."""

    exif: bytes = b""  # a TIFF-structured EXIF block without the "Exif\0\0" prefix; Orientation already applied
    xmp: bytes = b""  # the XMP packet of the file
    jpeg: bytes = b""  # the file itself where it is a JPEG, for an output that keeps its coded picture
    source: str = ""  # the file's name or "-"
    profile: str = ""  # description of the ICC profile the file carried, "" when none
    bits: int = 0  # bits per channel in the file, 0 when not from a file
    notes: tuple[str, ...] = ()  # what a reader had to do or guess, one sentence each, shown to the user
    extra: dict[str, str] = field(default_factory=dict)  # provenance to be written: model, weights, gamma, version


class Planes(Protocol):
    """A (C, H, W) picture of which windows are taken as floats: an array, or what makes them when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, window: tuple[slice, slice, slice], /) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Image:
    """An RGB picture.

    samples: (H, W, 3) RGB, rotation already applied, as narrow as they came: float32 or float16 numbers or, of code
    values, unsigned integers of 8 or 16 bits over their full range.
    transfer: what the numbers mean; see `Transfer`.
    primaries: the RGB primaries, BT.709 unless said.
    white: luminance in cd/m2 of linear 1.0, or None when the scale is relative.
    """

    samples: Samples
    transfer: Transfer
    primaries: Primaries = BT709
    white: float | None = None
    meta: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        shape, kind = self.samples.shape, self.samples.dtype
        if len(shape) != 3 or shape[2] != 3 or kind not in _KINDS[self.transfer]:
            raise WrongStateError(
                f"an Image of {self.transfer} pixels does not hold {shape} {kind}",
                hint="give (H, W, 3) float32, float16 or, of code values, uint8 or uint16",
            )

    @property
    def pixels(self) -> Float32:
        """The numbers of the whole picture, (H, W, 3) float32, code values in [0, 1]."""
        return to_float(self.samples)

    @property
    def height(self) -> int:
        return int(self.samples.shape[0])

    @property
    def width(self) -> int:
        return int(self.samples.shape[1])

    def to(self, transfer: Transfer) -> "Image":
        """The same picture with its numbers in another transfer; sRGB clips light to [0, 1] first."""
        if transfer == self.transfer:
            return self
        if transfer == Transfer.LINEAR:
            return replace(self, samples=srgb_decode(self.pixels), transfer=transfer)
        return replace(self, samples=srgb_encode(np.clip(self.pixels, 0, 1)), transfer=transfer)

    def require(self, transfer: Transfer, who: str) -> Float32:
        """The pixels, if they are in `transfer`; otherwise WrongStateError naming the caller."""
        self.check(transfer, who)
        return self.pixels

    def check(self, transfer: Transfer, who: str) -> None:
        """WrongStateError naming the caller unless the numbers are in `transfer`."""
        if self.transfer != transfer:
            raise WrongStateError(
                f"{who} needs {transfer} pixels but was given {self.transfer} ones",
                hint=f"call image.to(Transfer.{transfer.name}) first",
            )
