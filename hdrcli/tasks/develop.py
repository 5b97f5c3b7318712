"""develop: a camera's RAW file to a finished picture."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from hdrcli import infer, raw, tonemap, zoo
from hdrcli.color import SDR_WHITE, Float32, luminance, srgb_decode
from hdrcli.errors import UsageError
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.sensor import Mosaic, canonical, native, upright
from hdrcli.tasks.common import Made, check_number, model_for, provenance

Feed = Literal["canonical", "native"]
Balance = Literal["camera", "auto", "daylight"]

DEFAULT_LOOK = "fusion"

_MIDDLE = (0.05, 0.5)  # luminance of middle tones, in parts of white


def develop(
    source: Path | str | bytes | Mosaic,
    *,
    model: str | zoo.Model | None = None,
    sensor: Feed = "canonical",
    balance: Balance = "camera",
    ev: float = 0.0,
    look: str | None = None,
    compute: Compute | None = None,
) -> Image:
    """Develops a RAW file, the bytes of one, or a Mosaic, to an upright sRGB-encoded picture.

    model: a name, what `hdrcli.load_model` gave, or None for the default. sensor: "canonical" (levels, white balance
    and camera matrix applied) or "native" (10-bit counts / 1020), as the weights want it. balance: white balance.
    ev, look: see `develop_mosaic`. Raises HdrError.
    """
    ready = model_for("develop", model)
    check_settings(ready, ev, look)
    mosaic = _as_mosaic(source, sensor, balance)
    return develop_mosaic(ready, mosaic, feed=sensor, ev=ev, look=look, compute=compute or Compute()).image


def develop_mosaic(
    model: zoo.Model,
    mosaic: Mosaic,
    *,
    feed: Feed = "canonical",
    ev: float = 0.0,
    look: str | None = None,
    compute: Compute,
) -> Made:
    """Feeds a mosaic to `model` and finishes what it gives.

    ev: exposure in stops, applied to the sensor's light. look: the tone-mapping operator for models that give linear
    light, one of `tonemap.OPERATORS`, None for the fusion. UsageError for a look with a model that has its own.
    The partner of the picture is its light, where the model gives that.
    """
    check_settings(model, ev, look)
    look = look or DEFAULT_LOOK
    planes = canonical(mosaic, ev) if feed == "canonical" else native(mosaic, ev)
    result = infer.run(model.network, planes, compute)
    picture = upright(result.pixels, mosaic)
    linear = model.spec.gives == "linear"
    finished: Float32 = tonemap.OPERATORS[look](picture) if linear else np.clip(picture, 0, 1)
    facts = provenance(model, sensor=feed, ev=ev, look=look if linear else "learned")
    meta = replace(mosaic.meta, extra={**mosaic.meta.extra, **facts})
    image = Image(np.ascontiguousarray(finished, np.float32), Transfer.SRGB, meta=meta)
    light = Image(picture, Transfer.LINEAR, white=_white(picture, finished), meta=meta) if linear else None
    return Made(image, result, partner=light)


def check_settings(model: zoo.Model, ev: float, look: str | None) -> None:
    """UsageError for an exposure that is not finite, an unknown look, or a look on top of the model's own."""
    check_number("ev", ev)
    if look is not None and look not in tonemap.OPERATORS:
        raise UsageError(f"there is no look named {look!r}", hint="looks: " + ", ".join(tonemap.OPERATORS))
    if look is not None and model.spec.gives == "srgb":
        raise UsageError(f"{model.card.name} gives finished pictures with a look of its own", hint="leave --look out")


def _white(light: Float32, finished: Float32) -> float:
    """The luminance in cd/m2 of 1.0 in the light at which it is as bright as the finished picture in its middle tones.

    light, finished: (H, W, 3) linear and sRGB-encoded; the white of the finished picture is that of SDR.
    """
    bright, shown = luminance(light), luminance(srgb_decode(finished))
    middle = (shown > _MIDDLE[0]) & (shown < _MIDDLE[1]) & (bright > 0)
    return SDR_WHITE * float(np.median(shown[middle] / bright[middle])) if middle.any() else SDR_WHITE


def _as_mosaic(source: Path | str | bytes | Mosaic, feed: Feed, balance: Balance) -> Mosaic:
    if isinstance(source, Mosaic):
        return source
    return raw.read(source if isinstance(source, bytes) else Path(source), balance=balance, sensor=feed)
