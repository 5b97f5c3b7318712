"""Training of `singlehdr`: the camera's steps undone one by one, then together (Liu et al. 2020).

Options of a stage: step, which of its losses are about, "dequantize", "linearize", "hallucinate", "joint" or "refine";
size, the side of patches, a multiple of 64. In the first three steps every network is fed the truth of the step before
it. Parts of the loss: dequantize, squared error of code values before rounding; linearize, of linear light below
clipping; curve, of the inverse response; hallucinate, L1 of the logarithm of light; perceptual, of light in mu-law with
mu = 10, where VGG weights are given; variation, total variation of the light that is added; pu, an error of the
finished light over all pixels; stops and hue, errors over clipped ones.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli import camera
from hdrcli.color import Float64
from hdrcli.layouts import Kind
from hdrcli.losses import mu_law
from hdrcli.nets._autoencoder import highlight_mask
from hdrcli.nets.singlehdr import (
    CURVE_COMPONENTS,
    CURVE_SAMPLES,
    MASK_RAMP,
    InverseResponse,
    SingleHdr,
    apply_curve,
    curve_evidence,
)
from hdrcli.network import Network
from hdrcli.training import expand, hdrcnn, loop, pool, simulate
from hdrcli.training.course import Batch, Course, Losses, Sample
from hdrcli.training.data import Data
from hdrcli.training.recipe import Recipe, Stage
from hdrcli.training.vgg import Vgg

KINDS: tuple[Kind, ...] = ("scenes",)
OPTIONS: Mapping[str, object] = {"step": "joint", "size": 256}
LOSSES = ("dequantize", "linearize", "curve", "hallucinate", "perceptual", "variation", "pu", "stops", "hue")

_FAINTEST = 1 / 255  # light added before logarithms
_MU = 10.0
_LEAK = 0.1  # of gradients where no light is added, so that a channel that adds none can begin to again
_CURVES = 500  # random responses whose principal components the network describes responses by


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int, vgg: Vgg | None = None) -> Course:
    views, shots = expand.sources(data.train, seed), expand.held_out(data.val)
    torch.manual_seed(seed)
    network = SingleHdr(**recipe.build)
    begin(network, np.random.default_rng(seed))
    return Course(
        network=network,
        sample=lambda stage, rng: sample(views, stage, rng),
        loss=lambda network, batch, stage: loss(network, batch, stage, vgg),
        score=lambda network, stage: expand.score(network, shots),
        sheet=lambda network: expand.sheet(network, shots),
        plain=expand.plain(shots),
    )


def begin(network: SingleHdr, rng: np.random.Generator) -> None:
    """First weights: responses by components of random ones, highlights as HDRCNN, a refinement that does nothing."""
    codes = np.linspace(0, 1, CURVE_SAMPLES, dtype=np.float32)
    set_components(network.response, np.stack([camera.random_curve(rng).inverse(codes) for _ in range(_CURVES)]))
    hdrcnn.begin(network.hallucination)
    if network.refinement is not None:
        nn.init.zeros_(network.refinement.last.weight)
        nn.init.zeros_(network.refinement.last.bias)  # type: ignore[arg-type]


def set_components(response: InverseResponse, curves: Float64) -> None:
    """Describes responses by the mean and the principal components of (M, 1024) inverse curves, scaled to unit size."""
    mean = curves.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh((curves - mean).T @ (curves - mean) / len(curves))  # in rising order
    basis = axes[:, : -CURVE_COMPONENTS - 1 : -1] * np.sqrt(variances[: -CURVE_COMPONENTS - 1 : -1])
    response.mean.copy_(torch.from_numpy(mean))
    response.basis.copy_(torch.from_numpy(basis))


def sample(views: list[pool.Float16], stage: Stage, rng: np.random.Generator) -> Sample:
    """A patch: codes as the camera gives and encoded as they were before rounding, light, the inverse response."""
    scene = simulate.varied(views[int(rng.integers(len(views)))].astype(np.float32), rng)
    shot = simulate.photograph(scene, rng, size={**OPTIONS, **stage.options}["size"])
    return {
        "codes": expand.planes(shot.codes.astype(np.float32) / 255),
        "encoded": expand.planes(shot.curve(np.clip(shot.light, 0, 1))),
        "light": expand.planes(shot.light),
        "curve": shot.curve.inverse(np.linspace(0, 1, CURVE_SAMPLES, dtype=np.float32)),
    }


class Steps(NamedTuple):
    """What the steps give: code values, inverse responses (N, 1024), linear light, light with highlights, refined."""

    encoded: Tensor
    curve: Tensor
    linear: Tensor
    light: Tensor
    refined: Tensor


def steps(network: SingleHdr, batch: Batch, step: str) -> Steps:
    """Runs the steps that `step` trains, each on the truth of the one before unless they are trained together."""
    truth = step not in ("joint", "refine")
    clipped = batch["light"].clamp(max=1)
    encoded = network.dequantize(batch["codes"]) if not truth or step == "dequantize" else batch["encoded"]
    curve, linear = batch["curve"], clipped
    if not truth or step == "linearize":
        features = network.features(curve_evidence(encoded)).float().mean(dim=(2, 3))
        curve = network.response(features)
        linear = apply_curve(encoded.float(), curve)
    light = linear
    if not truth or step == "hallucinate":
        added = network.hallucination(linear).float()
        leaking = F.relu(added) + _LEAK * (added - added.detach())
        light = linear + highlight_mask(linear, MASK_RAMP) * leaking
    refined = light
    if step == "refine" and network.refinement is not None:
        refined = F.relu(light + network.refinement(torch.cat((light, linear, encoded), 1)).float())
    return Steps(encoded, curve, linear, light, refined)


def loss(network: Network, batch: Batch, stage: Stage, vgg: Vgg | None = None) -> Losses:
    assert isinstance(network, SingleHdr)
    found = steps(network, batch, {**OPTIONS, **stage.options}["step"])
    light = batch["light"]
    clipped = expand.clipped_pixels(batch["codes"])
    added = found.light - found.linear
    known = {
        "dequantize": lambda: (found.encoded - batch["encoded"]).square().mean(),
        "linearize": lambda: (found.linear - light.clamp(max=1)).square().mean(),
        "curve": lambda: (found.curve - batch["curve"]).square().mean(),
        "hallucinate": lambda: (_logarithm(found.refined) - _logarithm(light)).abs().mean(),
        "variation": lambda: added.diff(dim=2).abs().mean() + added.diff(dim=3).abs().mean(),
        "pu": lambda: expand.pu_error(found.refined, light, torch.ones_like(clipped)),
        "stops": lambda: expand.stops_error(found.refined, light, clipped),
        "hue": lambda: expand.hue_error(found.refined, light, clipped),
    }
    if vgg is not None:
        known["perceptual"] = lambda: vgg(mu_law(found.refined, _MU), mu_law(light, _MU))
    return {name: known[name]() for name in stage.loss}


def _logarithm(light: Tensor) -> Tensor:
    return torch.log(light + _FAINTEST)
