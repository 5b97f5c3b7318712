"""A picture of an HDR result that any screen can show."""

from dataclasses import replace

import numpy as np

from hdrcli.image import Image, Transfer
from hdrcli.tonemap.reinhard import key_gain, reinhard


def preview(image: Image) -> tuple[Image, str]:
    """The picture tone-mapped to sRGB, and a sentence that says how; an sRGB-encoded picture stays as it is."""
    if image.transfer == Transfer.SRGB:
        return image, "preview: the picture itself"
    stops = float(np.log2(key_gain(image.samples)))
    mapped = Image(reinhard(image.samples, np.uint8), Transfer.SRGB, meta=replace(image.meta, notes=()))
    return mapped, f"preview: Reinhard 2002, exposure {stops:+.1f} EV"
