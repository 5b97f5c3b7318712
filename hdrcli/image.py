"""The only pixel type that crosses module borders: an RGB picture that knows what its numbers mean."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from hdrcli.color import BT709, Float32, Primaries, srgb_decode, srgb_encode
from hdrcli.errors import WrongStateError


class Transfer(StrEnum):
    """How pixel numbers relate to light."""

    LINEAR = "linear"  # proportional to light, [0, inf)
    SRGB = "srgb"  # IEC 61966-2-1 code values, [0, 1]


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


@dataclass(frozen=True, slots=True)
class Image:
    """An RGB picture.

    pixels: (H, W, 3) float32 RGB, rotation already applied.
    transfer: what the numbers mean; see `Transfer`.
    primaries: the RGB primaries, BT.709 unless said.
    white: luminance in cd/m2 of linear 1.0, or None when the scale is relative.
    """

    pixels: Float32
    transfer: Transfer
    primaries: Primaries = BT709
    white: float | None = None
    meta: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.float32:
            raise WrongStateError(
                f"an Image holds (H, W, 3) float32 pixels, not {self.pixels.shape} {self.pixels.dtype}",
                hint="convert the array before making an Image of it",
            )

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    def to(self, transfer: Transfer) -> "Image":
        """The same picture with its numbers in another transfer; sRGB clips light to [0, 1] first."""
        if transfer == self.transfer:
            return self
        if transfer == Transfer.LINEAR:
            return replace(self, pixels=srgb_decode(self.pixels), transfer=transfer)
        return replace(self, pixels=srgb_encode(np.clip(self.pixels, 0, 1)), transfer=transfer)

    def require(self, transfer: Transfer, who: str) -> Float32:
        """The pixels, if they are in `transfer`; otherwise WrongStateError naming the caller."""
        if self.transfer != transfer:
            raise WrongStateError(
                f"{who} needs {transfer} pixels but was given {self.transfer} ones",
                hint=f"call image.to(Transfer.{transfer.name}) first",
            )
        return self.pixels
