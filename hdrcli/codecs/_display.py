"""Common to the formats that hold finished pictures: samples of a file to an sRGB `Image`, and back to bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import icc
from hdrcli.codecs import _exif, _xmp
from hdrcli.color import ADOBE_RGB, BT709, Float32, Samples, to_float
from hdrcli.errors import ReadError, WriteError, WrongStateError
from hdrcli.image import Image, Metadata, Transfer

ALPHA_DROPPED = "alpha channel dropped"

_ADOBE_GAMMA = 563 / 256  # Adobe RGB (1998) Color Image Encoding, section 4.3.4.2
_ROWS = 128


def damaged(name: str, why: object) -> ReadError:
    """The error for a file that begins well and cannot be decoded."""
    reason = " ".join(str(why).split())
    return ReadError(
        f"{name} is damaged or incomplete ({reason})" if reason else f"{name} is damaged or incomplete",
        hint="copy the file again from its source, or open and save it in a picture editor",
    )


def to_image(
    samples: NDArray[Any],
    *,
    bits: int,
    profile: icc.Profile | bytes = b"",
    exif: bytes = b"",
    xmp: bytes = b"",
    turned: bool = False,
    notes: Sequence[str] = (),
) -> Image:
    """An sRGB image of the samples of a file.

    samples: unsigned integers over their full range: (H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK where the largest
    number is full ink. bits: per channel in the file. profile: what the samples mean, or the ICC profile that came with
    them. exif, xmp: the EXIF block and the XMP packet that came with them. turned: whether the decoder has already
    applied the orientation.
    """
    upright = samples if turned else _exif.upright(samples, _exif.orientation(exif))
    known, problems = _profile(profile, exif)
    pixels, remarks = _to_srgb(upright, known)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    meta = Metadata(
        exif=exif,
        xmp=xmp,
        profile=known.description if known else "",
        bits=bits,
        notes=(*notes, *problems, *remarks),
        extra=_xmp.provenance(xmp),
    )
    return Image(np.ascontiguousarray(pixels), Transfer.SRGB, meta=meta)


def to_samples(image: Image, most: int, who: str, bits: int = 8) -> tuple[NDArray[Any], list[str]]:
    """(H, W, 3) sRGB code values of 8 or 16 bits, rounded to nearest, and notes on what had to be clipped.

    most: the longest side that the format holds. who: the writer, for messages.
    """
    check_output(image, most, who)
    full = np.float32(2**bits - 1)
    kind = np.uint8 if bits == 8 else np.uint16
    if image.samples.dtype == kind:
        return np.ascontiguousarray(image.samples), []
    values = np.empty(image.samples.shape, kind)
    clipped = broken = 0
    for top in range(0, image.height, _ROWS):
        scaled = to_float(image.samples[top : top + _ROWS]) * full
        finite = np.isfinite(scaled)
        if not finite.all():
            broken += int((~finite).sum())
            scaled = np.nan_to_num(scaled, nan=0.0)
        clipped += int(((scaled < -0.5) | (scaled > full + np.float32(0.5))).sum())
        values[top : top + _ROWS] = np.rint(np.clip(scaled, 0, full))
    notes = []
    if clipped:
        notes.append(f"{clipped} values outside [0, 1] clipped")
    if broken:
        notes.append(f"{broken} values that are not finite numbers written as black or white")
    return values, notes


def check_output(image: Image, most: int, who: str) -> None:
    """WrongStateError unless the primaries are those of BT.709, WriteError where a side is longer than `most`."""
    require_bt709(image, who)
    if max(image.width, image.height) > most:
        raise WriteError(
            f"{who} files hold at most {most} pixels a side, this picture is {image.width} x {image.height}",
            hint="write png or tif instead",
        )


def require_bt709(image: Image, who: str) -> None:
    """WrongStateError unless the primaries are those of BT.709."""
    if image.primaries != BT709:
        raise WrongStateError(
            f"the {who} writer needs BT.709 primaries but was given {image.primaries.name}",
            hint="convert the pixels with color.rgb_to_rgb first",
        )


def _profile(profile: icc.Profile | bytes, exif: bytes) -> tuple[icc.Profile | None, list[str]]:
    if isinstance(profile, icc.Profile):
        return profile, []
    if profile:
        try:
            return icc.parse(profile), []
        except icc.ProfileError as error:
            return None, [f"the ICC profile cannot be used ({error}); taken for sRGB"]
    if _exif.says_adobe_rgb(exif):
        return icc.of_primaries(ADOBE_RGB.name, ADOBE_RGB, _ADOBE_GAMMA), []
    return None, []


def _to_srgb(samples: NDArray[Any], profile: icc.Profile | None) -> tuple[Samples, list[str]]:
    """Samples as sRGB-encoded (H, W, 3) or, where grey, (H, W, 1), with remarks on the conversion."""
    space = {2: "GRAY", 3: "RGB" if samples.shape[-1] == 3 else "CMYK"}[samples.ndim]
    if profile is not None and space == "GRAY" and profile.space == "RGB":
        samples, space = np.repeat(samples[..., None], 3, axis=-1), "RGB"
    if profile is not None and profile.space != space:
        without, remarks = _to_srgb(samples, None)
        return without, [f"the profile {profile.description!r} is for {profile.space} and was ignored", *remarks]
    if profile is None or profile.is_srgb:
        if space == "CMYK":
            return _plain_cmyk(samples), ["CMYK without a usable profile: colours are approximate"]
        return samples if space == "RGB" else samples[..., None], []
    if profile.curves:
        encoded, outside = profile.srgb(samples if space == "RGB" else samples[..., None])
        remark = f"{outside:.1%} of the pixels lay outside the sRGB gamut of colours and were clipped to it"
        return encoded, [remark] if outside else []
    return _through_tables(samples, profile)


def _through_tables(samples: NDArray[Any], profile: icc.Profile) -> tuple[Samples, list[str]]:
    if samples.dtype == np.uint8:
        eight, remarks = samples, []
    else:
        eight = np.rint(to_float(samples) * 255).astype(np.uint8)
        remarks = [f"the profile {profile.description!r} holds tables: converted with 8 bits per channel"]
    try:
        return icc.through_tables(profile, eight), remarks
    except icc.ProfileError as error:
        plain, more = _to_srgb(samples, None)
        return plain, [f"the ICC profile cannot be used ({error}); it was ignored", *more]


def _plain_cmyk(samples: NDArray[Any]) -> Float32:
    ink = to_float(samples)
    return np.asarray((1 - ink[..., :3]) * (1 - ink[..., 3:]), np.float32)
