"""expand: an ordinary 8-bit picture to the light of its scene, with what the camera clipped filled in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hdrcli import codecs, infer, zoo
from hdrcli.batch import Check, go_on
from hdrcli.color import (
    BT709,
    CLIPPED_CODE,
    SDR_WHITE,
    Float32,
    Samples,
    apply_matrix,
    rgb_to_rgb,
    srgb_decode,
    srgb_encode,
    to_float,
)
from hdrcli.errors import ReadError
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.network import Context, Network, Wrapped
from hdrcli.tasks import sequence
from hdrcli.tasks.common import Made, check_denoise, check_number, denoising, model_for, provenance


def expand(
    source: Path | str | bytes | Image | NDArray[np.generic],
    *,
    model: str | zoo.Model | None = None,
    gamma: float = 1.0,
    scaling: float = 1.0,
    ev: float = 0.0,
    denoise: float = 1.0,
    white_nits: float = SDR_WHITE,
    compute: Compute | None = None,
) -> Image:
    """Gives a picture its light back: sRGB-encoded in, scene-linear BT.709 out, 1.0 where the camera clipped.

    source: a file, the bytes of one, an Image, or an (H, W, 3) sRGB-encoded array (integers of full range, or floats
    in [0, 1]). model: a name, what `hdrcli.load_model` gave, or None for the default.
    gamma, scaling, ev, denoise, white_nits: see `expand_image`. Raises HdrError; ReadError where the source is linear.
    A file is decoded in this process; only commands decode in processes of their own, which damaged files may end.
    """
    image = _as_image(source)
    return expand_image(
        model_for("expand", model),
        image,
        gamma=gamma,
        scaling=scaling,
        ev=ev,
        denoise=denoise,
        white_nits=white_nits,
        compute=compute or Compute(),
    ).image


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """All settings of `expand`, for any number of files; see `expand_image`."""

    model: zoo.Model
    gamma: float = 1.0
    scaling: float = 1.0
    ev: float = 0.0
    denoise: float = 1.0
    white_nits: float = SDR_WHITE
    half: bool = False
    compute: Compute = field(default_factory=Compute)

    @property
    def reader(self) -> Callable[..., Image]:
        """Reads a finished picture, given by its path or as bytes, and its name."""
        return codecs.read_encoded

    def steady(self, frames: Sequence[Image]) -> "Expansion":
        """The same for a clip: with what the model finds in whole pictures found once, from some of its frames."""
        planes = [Feed(frame, self.gamma, self.scaling) for frame in frames]
        return replace(self, model=sequence.steady(self.model, planes))

    def make(self, decoded: Image, check: Check = go_on) -> Made:
        """Expands a picture; `check` is called before each tile, and may raise."""
        return expand_image(
            self.model,
            decoded,
            gamma=self.gamma,
            scaling=self.scaling,
            ev=self.ev,
            denoise=self.denoise,
            white_nits=self.white_nits,
            half=self.half,
            compute=self.compute,
            check=check,
        )


def expand_image(
    model: zoo.Model,
    image: Image,
    *,
    gamma: float = 1.0,
    scaling: float = 1.0,
    ev: float = 0.0,
    denoise: float = 1.0,
    white_nits: float = SDR_WHITE,
    half: bool = False,
    compute: Compute,
    check: Check = go_on,
) -> Made:
    """y = f(min(1, scaling x)^(1 / gamma))^gamma 2^ev, where f is the model.

    gamma: above 1 lifts the picture before the model sees it and deepens the result: more contrast (HDRCNN, 2017).
    scaling: gain on the code values, above 1 clips more. ev: exposure of the result in stops.
    denoise: strength in [0, 1], of models that measure noise; 1 is as trained, 0 leaves the noise.
    white_nits: luminance in cd/m2 that 1.0 in the result stands for; it changes no number in it.
    half: the result is kept in 16 bits, enough for EXR files in half precision and gain maps.
    check: called before each tile, may raise.
    """
    check_settings(model, gamma, scaling, ev, denoise, white_nits)
    feed = Feed(image, gamma, scaling)
    result = infer.run(Graded(denoising(model.network, denoise), gamma, ev), feed, compute, check, half=half)
    notes = image.meta.notes
    if feed.brightest < CLIPPED_CODE:
        notes = (*notes, "no pixel is clipped: there is nothing to reconstruct")
    facts = provenance(model, gamma=gamma, scaling=scaling, ev=ev, denoise=denoise, white_nits=white_nits)
    meta = replace(image.meta, notes=notes, extra={**image.meta.extra, **facts})
    light = Image(result.pixels, Transfer.LINEAR, white=white_nits, meta=meta)
    return Made(light, result.device, result.precision, result.tiles, partner=image)


class Feed:
    """A picture as the model sees it, min(1, scaling x)^(1 / gamma): (3, H, W), of which windows can be taken."""

    def __init__(self, image: Image, gamma: float, scaling: float) -> None:
        samples = _srgb_709(image)
        self.shape = (3, *samples.shape[:2])
        self.brightest = _scaled(samples.max(keepdims=True), scaling).item()  # before the model sees it
        self._samples, self._gamma, self._scaling = samples, gamma, scaling
        if samples.dtype.kind == "u":
            self._table = self._seen(np.arange(np.iinfo(samples.dtype).max + 1).astype(samples.dtype))

    def __getitem__(self, window: tuple[slice, slice, slice]) -> Float32:
        planes, rows, columns = window
        samples = self._samples[rows, columns, planes]
        seen = self._table.take(samples, mode="clip") if samples.dtype.kind == "u" else self._seen(samples)
        return np.moveaxis(seen, 2, 0)

    def _seen(self, samples: Samples) -> Float32:
        codes = _scaled(samples, self._scaling)
        return codes if self._gamma == 1 else codes ** np.float32(1 / self._gamma)


def _scaled(samples: Samples, scaling: float) -> Float32:
    scaled: Float32 = np.clip(to_float(samples) * np.float32(scaling), 0, 1)
    return scaled


class Graded(Wrapped):
    """A network whose light is raised to the power of `gamma` and exposed by `ev` stops."""

    def __init__(self, network: Network, gamma: float, ev: float) -> None:
        super().__init__(network)
        self.gamma, self.gain = gamma, 2.0**ev

    def finish(self, output: Tensor, context: Context) -> Tensor:
        light = self.network.finish(output, context).clamp(min=0)
        graded: Tensor = (light if self.gamma == 1 else light**self.gamma) * self.gain
        return graded


def check_settings(
    model: zoo.Model, gamma: float, scaling: float, ev: float, denoise: float, white_nits: float
) -> None:
    """UsageError unless all are finite, all but exposure and strength above 0, and the model has that strength."""
    check_denoise(model, denoise, 1)
    check_number("gamma", gamma, above=0)
    check_number("scaling", scaling, above=0)
    check_number("ev", ev)
    check_number("white_nits", white_nits, above=0)


def _as_image(source: Path | str | bytes | Image | NDArray[np.generic]) -> Image:
    if isinstance(source, Image):
        return source
    if isinstance(source, np.ndarray):
        return Image(_code_values(source), Transfer.SRGB)
    return codecs.read(source if isinstance(source, bytes) else Path(source))


def _code_values(array: NDArray[np.generic]) -> Samples:
    if array.dtype in (np.uint8, np.uint16) and array.size:
        return array
    values = array.astype(np.float32)
    if array.dtype.kind == "u":
        values /= np.float32(2 ** (8 * array.dtype.itemsize) - 1)
    if array.dtype.kind not in "uf" or not (values.size and 0 <= values.min() <= values.max() <= 1):
        raise ReadError(
            f"this array of {array.dtype} is no sRGB-encoded picture",
            hint="give unsigned integers, or floats in [0, 1]",
        )
    return values


def _srgb_709(image: Image) -> Samples:
    """Code values with BT.709 primaries."""
    if codecs.require_encoded(image).primaries == BT709:
        return image.samples
    linear = apply_matrix(rgb_to_rgb(image.primaries, BT709), srgb_decode(np.clip(image.pixels, 0, 1)))
    return srgb_encode(np.clip(linear, 0, 1))
