"""HEIC, HEIF with HEVC (ISO/IEC 23008-12): what phones take, read only."""

import numpy as np
import pillow_heif

from hdrcli import icc
from hdrcli.codecs import _display, _exif
from hdrcli.color import BT709, DISPLAY_P3
from hdrcli.image import Image
from hdrcli.limits import check_size

_PRIMARIES = {1: BT709, 12: DISPLAY_P3}  # ITU-T H.273


def read(data: bytes, name: str) -> Image:
    """An sRGB image; 10- and 12-bit files keep their depth."""
    try:
        picture = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
        width, height = picture.size
        check_size(width, height, name)
        samples = np.asarray(picture)
    except (ValueError, OSError, EOFError, SyntaxError, RuntimeError) as error:  # what its decoder raises
        raise _display.damaged(name, error) from error
    notes = [_display.ALPHA_DROPPED] if picture.has_alpha else []
    straight = samples[..., :3] if samples.ndim == 3 else samples
    profile = picture.info.get("icc_profile") or b""
    primaries = _PRIMARIES.get((picture.info.get("nclx_profile") or {}).get("color_primaries", 1), BT709)
    return _display.to_image(
        straight,
        bits=int(picture.info.get("bit_depth", 8)),
        profile=profile if profile or primaries == BT709 else icc.of_primaries(primaries.name, primaries),
        exif=_exif.stripped(picture.info.get("exif") or b""),
        xmp=picture.info.get("xmp") or b"",
        turned=True,
        notes=notes,
    )
