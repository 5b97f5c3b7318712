"""develop: a camera's RAW file to a finished picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from hdrcli import infer, raw, tonemap, zoo
from hdrcli.batch import Check, go_on
from hdrcli.color import SDR_WHITE, Float64, Floats, Samples, luminance, srgb_decode, to_float
from hdrcli.errors import UsageError
from hdrcli.image import Image, Planes, Transfer
from hdrcli.infer import Compute
from hdrcli.sensor import Mosaic, Packed, anchor, camera_linear, native, upright
from hdrcli.tasks.common import Made, check_denoise, check_number, denoising, model_for, provenance

Feed = Literal["canonical", "native"]
Balance = Literal["camera", "as-shot", "auto", "daylight"]
Bits = Literal[8, 16, 32]

DEFAULT_LOOK = "fusion"

_KINDS = {8: np.uint8, 16: np.uint16, 32: np.float32}

_MIDDLE = (0.05, 0.5)  # luminance of middle tones, in parts of white
_SAMPLED = 500_000  # pixels in which middle tones are looked for


class Clip(NamedTuple):
    """What is the same for all frames of a clip. gain: exposure. balance: white balance, None for each frame's own."""

    gain: float
    balance: Float64 | None = None


def develop(
    source: Path | str | bytes | Mosaic,
    *,
    model: str | zoo.Model | None = None,
    sensor: Feed = "canonical",
    balance: Balance = "camera",
    ev: float = 0.0,
    denoise: float = 1.0,
    look: str | None = None,
    compute: Compute | None = None,
) -> Image:
    """Develops a RAW file, the bytes of one, or a Mosaic, to an upright sRGB-encoded picture.

    model: a name, what `hdrcli.load_model` gave, or None for the default. sensor: "canonical" (levels, white balance
    and camera matrix applied) or "native" (10-bit counts / 1020), as the weights want it. balance: white balance.
    ev, denoise, look: see `develop_mosaic`. Raises HdrError.
    A file is decoded in this process; only commands decode in processes of their own, which damaged files may end.
    """
    ready = model_for("develop", model)
    check_settings(ready, ev, denoise, look)
    mosaic = _as_mosaic(source, sensor, balance)
    settings = Development(
        model=ready, sensor=sensor, balance=balance, ev=ev, denoise=denoise, look=look, compute=compute or Compute()
    )
    return settings.make(mosaic).image


@dataclass(frozen=True, kw_only=True)
class Development:
    """All settings of `develop`, for any number of files; see there and `develop_mosaic`."""

    model: zoo.Model
    sensor: Feed = "canonical"
    balance: Balance = "camera"
    ev: float = 0.0
    denoise: float = 1.0
    look: str | None = None
    clip: Clip | None = None
    bits: Bits = 32
    compute: Compute = field(default_factory=Compute)

    @property
    def reader(self) -> Callable[..., Mosaic]:
        """Reads a RAW file, given by its path or as bytes, and its name."""
        return raw.reader(self.balance, self.sensor)

    def make(self, decoded: Mosaic, check: Check = go_on) -> Made:
        """Develops a mosaic; `check` is called before each tile, and may raise."""
        return develop_mosaic(
            self.model,
            decoded,
            feed=self.sensor,
            ev=self.ev,
            denoise=self.denoise,
            look=self.look,
            clip=self.clip,
            bits=self.bits,
            compute=self.compute,
            check=check,
        )


def develop_mosaic(
    model: zoo.Model,
    mosaic: Mosaic,
    *,
    feed: Feed = "canonical",
    ev: float = 0.0,
    denoise: float = 1.0,
    look: str | None = None,
    clip: Clip | None = None,
    bits: Bits = 32,
    compute: Compute,
    check: Check = go_on,
) -> Made:
    """Feeds a mosaic to `model` and finishes what it gives.

    ev: exposure in stops, applied to the sensor's light. denoise: strength in [0, 4], of models that measure noise; 1
    is as trained, 0 leaves the noise. look: the tone-mapping operator for models that give linear
    light, one of `tonemap.OPERATORS`, None for the fusion. clip: what holds for all frames of a clip, if it is one.
    bits: of the finished picture's samples, integers of 8 or 16 or floats of 32; with 8, light is kept in 16.
    check: called before each tile, may raise. The partner of the picture is its light, where the model gives that.
    UsageError for a look with a model that has its own.
    """
    check_settings(model, ev, denoise, look)
    look = look or DEFAULT_LOOK
    if feed not in model.spec.feeds:
        feed = model.spec.feeds[0]
        note = f"{model.card.name} is made for the {feed} sensor, and was fed that"
        mosaic = replace(mosaic, meta=replace(mosaic.meta, notes=(*mosaic.meta.notes, note)))
    network = denoising(model.network, denoise)
    linear = model.spec.gives == "linear"
    result = infer.run(network, fed(mosaic, feed, ev, clip), compute, check, half=linear and bits == 8)
    picture = upright(result.pixels, mosaic)
    finished = tonemap.OPERATORS[look](picture, _KINDS[bits]) if linear else tonemap.clipped(picture, _KINDS[bits])
    facts = provenance(model, sensor=feed, ev=ev, denoise=denoise, look=look if linear else "learned")
    meta = replace(mosaic.meta, extra={**mosaic.meta.extra, **facts})
    image = Image(finished, Transfer.SRGB, meta=meta)
    light = Image(picture, Transfer.LINEAR, white=_white(picture, finished), meta=meta) if linear else None
    return Made(image, result.device, result.precision, result.tiles, partner=light)


def fed(mosaic: Mosaic, feed: Feed, ev: float, clip: Clip | None = None) -> Planes:
    """What the model sees of a mosaic, made window by window, with balance and gain of the clip, if it is of one."""
    if feed == "native":
        return Packed(mosaic, partial(native, ev=ev))
    balance = mosaic.balance if clip is None or clip.balance is None else clip.balance
    held = replace(mosaic, balance=balance)
    gain = np.float32((clip.gain if clip else anchor(Packed(held, camera_linear))) * 2.0**ev)
    return Packed(held, lambda part: camera_linear(part) * gain)


def clip_of(mosaics: Sequence[Mosaic], balance: Balance, look: str | None) -> Clip:
    """The exposure that suits these frames of a clip on average and, where pictures have a say in it, their balance.

    UsageError for a look that adapts to each picture.
    """
    if look == "reinhard":
        raise UsageError("the look reinhard adapts to each picture, so that a clip would flicker", hint="use fusion")
    seen = balance in ("camera", "auto")
    common = np.exp(np.mean([np.log(mosaic.balance) for mosaic in mosaics], axis=0)) if seen else None
    held = [mosaic if common is None else replace(mosaic, balance=common) for mosaic in mosaics]
    return Clip(float(np.exp(np.mean([np.log(anchor(Packed(mosaic, camera_linear))) for mosaic in held]))), common)


def check_settings(model: zoo.Model, ev: float, denoise: float, look: str | None) -> None:
    """UsageError for an exposure that is not finite, a strength or look that cannot be, or that the model has not."""
    check_number("ev", ev)
    check_denoise(model, denoise, 4)
    if look is not None and look not in tonemap.OPERATORS:
        raise UsageError(f"there is no look named {look!r}", hint="looks: " + ", ".join(tonemap.OPERATORS))
    if look is not None and model.spec.gives == "srgb":
        raise UsageError(f"{model.card.name} gives finished pictures with a look of its own", hint="leave --look out")


def _white(light: Floats, finished: Samples) -> float:
    """The luminance in cd/m2 of 1.0 in the light at which it is as bright as the finished picture in its middle tones.

    light, finished: (H, W, 3) linear and sRGB-encoded; the white of the finished picture is that of SDR.
    """
    step = max(1, round((light[..., 0].size / _SAMPLED) ** 0.5))
    sampled = np.s_[::step, ::step]
    bright, shown = luminance(to_float(light[sampled])), luminance(srgb_decode(to_float(finished[sampled])))
    middle = (shown > _MIDDLE[0]) & (shown < _MIDDLE[1]) & (bright > 0)
    return SDR_WHITE * float(np.median(shown[middle] / bright[middle])) if middle.any() else SDR_WHITE


def _as_mosaic(source: Path | str | bytes | Mosaic, feed: Feed, balance: Balance) -> Mosaic:
    if isinstance(source, Mosaic):
        return source
    return raw.read(source if isinstance(source, bytes) else Path(source), balance=balance, sensor=feed)
