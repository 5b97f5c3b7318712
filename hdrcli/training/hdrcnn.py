"""Training of `hdrcnn`: the light of saturated pixels, in the log domain.

Parts of the loss, all weighted by the blend mask: illumination and reflectance, of the paper (Eilertsen et al. 2017,
equations 5 to 8), direct, its equation 4; pu and stops, errors of the finished light over clipped pixels.
Options of a stage: size, the side of patches, a multiple of 32.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.color import LUMINANCE_709
from hdrcli.nets._autoencoder import Autoencoder, highlight_mask
from hdrcli.nets.hdrcnn import LOG_OFFSET, MASK_RAMP, Hdrcnn
from hdrcli.network import Network
from hdrcli.training import expand, loop
from hdrcli.training.course import Batch, Course, Losses
from hdrcli.training.data import Data
from hdrcli.training.recipe import Recipe, Stage

KINDS = expand.KINDS
OPTIONS: Mapping[str, object] = {"size": 256}
LOSSES = ("illumination", "reflectance", "direct", "pu", "stops")

_FIRST_LIGHT = 0.1  # spread of the first predictions, in natural logarithms
_SIGMA, _RADIUS = 2.0, 6  # of the blur that separates illumination from reflectance


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int) -> Course:
    shoot, shots = expand.photographs(data.train, seed), expand.held_out(data.val)
    torch.manual_seed(seed)
    network = Hdrcnn(**recipe.build)
    begin(network.autoencoder)
    return Course(
        network=network,
        sample=lambda stage, rng: expand.sample(shoot, {**OPTIONS, **stage.options}["size"], rng),
        loss=loss,
        score=lambda network, stage: expand.score(network, shots),
        sheet=lambda network: expand.sheet(network, shots),
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


def loss(network: Network, batch: Batch, stage: Stage) -> Losses:
    assert isinstance(network, Hdrcnn)
    codes, light = batch["codes"], batch["light"]
    mask = highlight_mask(codes, MASK_RAMP)
    predicted, wanted = network.autoencoder(codes).float(), torch.log(light + LOG_OFFSET)
    finished = (1 - mask) * network.unclipped(codes) + mask * (predicted.exp() - LOG_OFFSET)
    (bright, detail), (bright_wanted, detail_wanted) = separated(predicted), separated(wanted)
    clipped = expand.clipped_pixels(codes)
    known: Mapping[str, Callable[[], Tensor]] = {
        "illumination": lambda: (mask * (bright - bright_wanted)).square().mean(),
        "reflectance": lambda: (mask * (detail - detail_wanted)).square().mean(),
        "direct": lambda: (mask * (predicted - wanted)).square().mean(),
        "pu": lambda: expand.pu_error(finished, light, clipped),
        "stops": lambda: expand.stops_error(finished, light, clipped),
    }
    return {name: known[name]() for name in stage.loss}


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
