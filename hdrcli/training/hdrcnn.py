"""Training of `hdrcnn`: the light of saturated pixels, in the log domain.

Parts of the loss, all weighted by the blend mask: illumination and reflectance, of the paper (Eilertsen et al. 2017,
equations 5 to 8), direct, its equation 4; pu, stops, slopes and hue, errors of the finished light over clipped
pixels; stability, coherence and jacobian, for films (see `temporal`), of the logarithm of the finished light, not
weighted.

Options of a stage: size, the side of patches, a multiple of 32; linearised, whether it learns from ordinary pictures in
DIR/pretrain, whose light is made by the inverse of the mean camera curve (section 5 of the paper).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.color import LUMINANCE_709, Float32
from hdrcli.errors import ReadError
from hdrcli.nets._autoencoder import Autoencoder, highlight_mask
from hdrcli.nets.hdrcnn import LOG_OFFSET, MASK_RAMP, Hdrcnn, inverse_camera_curve
from hdrcli.network import Network
from hdrcli.training import data as files
from hdrcli.training import expand, loop, simulate, temporal
from hdrcli.training.course import Batch, Course, Losses, Sample
from hdrcli.training.data import Data
from hdrcli.training.recipe import Recipe, Stage

KINDS = expand.KINDS
OPTIONS: Mapping[str, Any] = {"size": 256, "linearised": False}
LOSSES = ("illumination", "reflectance", "direct", "pu", "stops", "slopes", "hue", *temporal.PARTS)

_FIRST_LIGHT = 0.1  # spread of the first predictions, in natural logarithms
_SIGMA, _RADIUS = 2.0, 6  # of the blur that separates illumination from reflectance
_SATURATED = 50 / 256**2  # share of saturated pixels up to which a picture is of use for pre-training
_TRIES = 50  # pictures in which one of use is sought


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int) -> Course:
    shoot, shots = expand.photographs(data.train, seed), expand.held_out(data.val)
    if any(stage.options.get("linearised") for stage in recipe.stages) and not data.pretrain:
        place = data.train.base.with_name(files.PRETRAIN)
        raise ReadError(
            f"{place} holds no pictures to begin with", hint="put ordinary pictures there, or name another --stage"
        )
    torch.manual_seed(seed)
    network = Hdrcnn(**recipe.build)
    begin(network.autoencoder)
    return Course(
        network=network,
        sample=lambda stage, rng: sample(shoot, data.pretrain, stage, rng),
        loss=loss,
        score=lambda network, stage: expand.score(network, shots),
        sheet=lambda network: expand.sheet(network, shots),
        plain=expand.plain(shots),
    )


def begin(network: Autoencoder) -> None:
    """First weights after the paper: layers that join the decoder with a skip begin by adding them.

    The encoder begins as He et al. 2015 has it, where the paper takes VGG-16 trained on another task.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        if name.startswith(("fuses.", "last_fuse")) and isinstance(layer, nn.Conv2d):
            identity = torch.eye(layer.out_channels)[:, :, None, None]
            with torch.no_grad():
                layer.weight.copy_(torch.cat([identity, identity], dim=1))
    nn.init.constant_(network.to_rgb.norm.weight, _FIRST_LIGHT)


def sample(shoot: expand.Shoot, pictures: Sequence[Path], stage: Stage, rng: np.random.Generator) -> Sample:
    options = {**OPTIONS, **stage.options}
    return expand.sample(partial(linearised, pictures) if options["linearised"] else shoot, options["size"], rng)


def linearised(pictures: Sequence[Path], size: int, rng: np.random.Generator) -> tuple[expand.Codes, Float32]:
    """A photograph of what an ordinary picture, where next to nothing is saturated, shows, and its light."""
    for _ in range(_TRIES):
        path = pictures[int(rng.integers(len(pictures)))]
        encoded = files.read_picture(path)
        if np.mean(encoded.max(axis=2) >= 1) <= _SATURATED:
            break
    else:
        raise ReadError(f"pictures in {path.parent} are saturated", hint="pictures without burnt-out parts are needed")
    rows, columns = encoded.shape[:2]
    if min(rows, columns) < size:
        raise ReadError(f"{path} is smaller than {size} pixels", hint="set a smaller size in the recipe")
    factor = min(1.0, 1.5 * size / min(rows, columns))
    shape = max(size, round(columns * factor)), max(size, round(rows * factor))
    light = inverse_camera_curve(torch.from_numpy(cv2.resize(encoded, shape, interpolation=cv2.INTER_AREA))).numpy()
    shot = simulate.photograph(simulate.varied(light, rng), rng, size=size)
    return shot.codes, shot.light


def loss(network: Network, batch: Batch, stage: Stage) -> Losses:
    assert isinstance(network, Hdrcnn)
    codes, light = batch["codes"], batch["light"]
    mask = highlight_mask(codes, MASK_RAMP)
    predicted, wanted = network.autoencoder(codes).float(), torch.log(light + LOG_OFFSET)
    finished = _blended(network, codes, predicted)
    (bright, detail), (bright_wanted, detail_wanted) = separated(predicted), separated(wanted)
    clipped = expand.clipped_pixels(codes)

    def compared(codes: Tensor) -> Tensor:
        return _logarithm(_blended(network, codes, network.autoencoder(codes).float()))

    known: dict[str, Callable[[], Tensor]] = {
        "illumination": lambda: (mask * (bright - bright_wanted)).square().mean(),
        "reflectance": lambda: (mask * (detail - detail_wanted)).square().mean(),
        "direct": lambda: (mask * (predicted - wanted)).square().mean(),
        "pu": lambda: expand.pu_error(finished, light, clipped),
        "stops": lambda: expand.stops_error(finished, light, clipped),
        "slopes": lambda: expand.slopes_error(finished, light, clipped),
        "hue": lambda: expand.hue_error(finished, light, clipped),
    }
    known |= {
        name: partial(part, compared, codes, _logarithm(finished), wanted) for name, part in temporal.PARTS.items()
    }
    return {name: known[name]() for name in stage.loss}


def _blended(network: Hdrcnn, codes: Tensor, predicted: Tensor) -> Tensor:
    """The finished light of code values and the prediction for their saturated parts."""
    mask = highlight_mask(codes, MASK_RAMP)
    return (1 - mask) * network.unclipped(codes) + mask * (predicted.exp() - LOG_OFFSET)


def _logarithm(light: Tensor) -> Tensor:
    return torch.log(light.clamp(min=0) + LOG_OFFSET)


def separated(logarithm: Tensor) -> tuple[Tensor, Tensor]:
    """Splits the logarithm of light, (N, 3, H, W), into that of illumination, (N, 1, H, W), and that of reflectance.

    Illumination is the blurred logarithm of luminance.
    """
    weights = torch.from_numpy(np.log(LUMINANCE_709)).to(logarithm.device)[None, :, None, None]
    luminance = torch.logsumexp(logarithm + weights, dim=1, keepdim=True)
    places = torch.arange(-_RADIUS, _RADIUS + 1, device=logarithm.device, dtype=logarithm.dtype)
    kernel = torch.softmax(places.square() / (-2 * _SIGMA**2), dim=0)
    padded = F.pad(luminance, (_RADIUS,) * 4, mode="reflect")
    illumination = F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return illumination, logarithm - illumination
