"""Training of `fhdr`: all light, through every iteration of the feedback.

What clips lies at 1 / peak of the network's range, which leaves room for highlights `peak` times as bright. Parts of
the loss, means over the iterations: mu_law, the paper's L1 of mu-law light (Khan et al. 2019, equation 5); perceptual,
of mu-law light, where VGG weights are given; pu, over all pixels, and stops, slopes and hue, over clipped ones.
Options of a stage: size, the side of patches.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from hdrcli.losses import mu_law
from hdrcli.nets.fhdr import FHDR
from hdrcli.network import Network
from hdrcli.training import expand, loop
from hdrcli.training.course import Batch, Course, Losses
from hdrcli.training.data import Data
from hdrcli.training.recipe import Recipe, Stage
from hdrcli.training.vgg import Vgg

KINDS = expand.KINDS
OPTIONS: Mapping[str, object] = {"size": 192}
LOSSES = ("mu_law", "perceptual", "pu", "stops", "slopes", "hue")

_FIRST_LIGHT = -2.0  # before tanh: 2 % of the range


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int, vgg: Vgg | None = None) -> Course:
    shoot, shots = expand.photographs(data.train, seed), expand.held_out(data.val)
    torch.manual_seed(seed)
    network = FHDR(**recipe.build)
    begin(network)
    return Course(
        network=network,
        sample=lambda stage, rng: expand.sample(shoot, {**OPTIONS, **stage.options}["size"], rng),
        loss=lambda network, batch, stage: loss(network, batch, stage, vgg),
        score=lambda network, stage: expand.score(network, shots),
        sheet=lambda network: expand.sheet(network, shots),
        plain=expand.plain(shots),
    )


def begin(network: FHDR) -> None:
    """First weights: a network with a skip begins with what that carries, any other with little light."""
    nn.init.constant_(network.reconstruct2.bias, 0.0 if network.skip else _FIRST_LIGHT)  # type: ignore[arg-type]
    if network.skip:
        nn.init.zeros_(network.reconstruct2.weight)


def loss(network: Network, batch: Batch, stage: Stage, vgg: Vgg | None = None) -> Losses:
    assert isinstance(network, FHDR)
    codes, peak = batch["codes"], network.peak
    wanted = (batch["light"] / peak).clamp(max=1)
    clipped = expand.clipped_pixels(codes)
    given = [(output.float() + 1) / 2 for output in network.iterates(codes)]
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "mu_law": lambda light: (mu_law(light) - mu_law(wanted)).abs().mean(),
        "pu": lambda light: expand.pu_error(peak * light, peak * wanted, torch.ones_like(clipped)),
        "stops": lambda light: expand.stops_error(peak * light, peak * wanted, clipped),
        "slopes": lambda light: expand.slopes_error(peak * light, peak * wanted, clipped),
        "hue": lambda light: expand.hue_error(peak * light, peak * wanted, clipped),
    }
    if vgg is not None:
        known["perceptual"] = lambda light: vgg(mu_law(light), mu_law(wanted))
    return {name: torch.stack([known[name](light) for light in given]).mean() for name in stage.loss}
