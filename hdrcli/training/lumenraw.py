"""Training of `lumenraw`: simulated mosaics of HDR scenes to the clean linear scene, judged in the finished look."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hdrcli.color import Float32
from hdrcli.layouts import Kind
from hdrcli.nets.lumenraw import LumenRaw, noise_model
from hdrcli.network import Network
from hdrcli.tonemap.fusion import fusion
from hdrcli.training import develop, loop, pool, simulate
from hdrcli.training.course import Batch, Course, Losses, Sample
from hdrcli.training.data import Data
from hdrcli.training.recipe import Recipe, Stage

OPTIONS: Mapping[str, object] = {}
KINDS: tuple[Kind, ...] = ("scenes",)
LOSSES = ("light", "colour", "blotches", "slopes", "ssim")

CROP = (256, 320)  # of each simulated shot
LEAKING = 0.5  # of the sensors let light of neighbours leak into the greens


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int) -> Course:
    """Trains on the scenes of data.train, validates on those of data.val."""
    scenes = pool.read_scenes(data.train)
    sources = (
        pool.views(scenes, 5, seed)
        + pool.windows(scenes, 4, seed + 1)
        + pool.windows(scenes, 5, seed + 2, smallest=0.78)
    )
    held_out = develop.held_out(pool.read_scenes(data.val))
    torch.manual_seed(seed)
    return Course(
        network=LumenRaw(**recipe.build),
        sample=lambda stage, rng: sample(sources, rng),
        loss=loss,
        score=lambda network, stage: develop.scores((_made(network, planes), to) for planes, to in held_out),
        sheet=lambda network: simulate.sheet([(planes, _made(network, planes), to) for planes, to in held_out[:6]]),
    )


def sample(sources: list[pool.Float16], rng: np.random.Generator) -> Sample:
    """A crop of a simulated shot, the noise model of the whole of it, and the linear scene."""
    scene = _jitter(sources[int(rng.integers(len(sources)))].astype(np.float32), rng)
    if rng.random() < simulate.DRAWN:
        scene = simulate.drawn_on(scene, rng)
    planes, target = simulate.mosaic(scene, rng)
    if rng.random() < LEAKING:
        planes = with_leaks(planes, rng)
    noise = noise_model(torch.from_numpy(planes)[None])[0]
    height, width = CROP[0] // 2, CROP[1] // 2
    top, left = (int(rng.integers(0, room + 1)) for room in (planes.shape[1] - height, planes.shape[2] - width))
    target = target[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
    return {
        "planes": planes[:, top : top + height, left : left + width],
        "target": np.ascontiguousarray(target.transpose(2, 0, 1)),
        "noise": noise,
    }


def with_leaks(planes: Float32, rng: np.random.Generator) -> Float32:
    """Light of neighbours that leaks into the two greens, a little more or less into one: a grid in strong colours.

    planes: (4, h, w) B, Gr, R, Gb.
    """
    red, blue, both = rng.normal(0, 0.01, 3).astype(np.float32)
    more = red * planes[2] + blue * planes[0] + both * (planes[1] + planes[3]) / 2
    leaked: Float32 = planes + np.stack([np.zeros_like(more), more, np.zeros_like(more), -more])
    return leaked


def _jitter(scene: Float32, rng: np.random.Generator) -> Float32:
    """Flips, and tints a little, so that colours differ more than the scenes at hand do."""
    if rng.random() < 0.5:
        scene = scene[::-1]
    if rng.random() < 0.5:
        scene = scene[:, ::-1]
    return np.ascontiguousarray(scene * np.exp(rng.normal(0, 0.1, 3)).astype(np.float32))


def loss(network: Network, batch: Batch, stage: Stage) -> Losses:
    """Errors of the picture as the fusion would about show it.

    light: mean. colour: of the differences of red and blue to green. blotches: of both, averaged over 8x8 pixels.
    slopes: of the gradients of grey. ssim: 1 - SSIM of grey, with a plain 7x7 window.
    """
    assert isinstance(network, LumenRaw)
    seen, wanted = look(network(batch["planes"], {"noise": batch["noise"]})), look(batch["target"])
    error = seen - wanted
    colour = error[:, 0::2] - error[:, 1:2]
    grey = error.mean(dim=1, keepdim=True)
    parts = {
        "light": error.abs().mean(),
        "colour": colour.abs().mean(),
        "blotches": F.avg_pool2d(colour, 8).abs().mean() + 0.5 * F.avg_pool2d(error, 8).abs().mean(),
        "slopes": grey.diff(dim=2).abs().mean() + grey.diff(dim=3).abs().mean(),
        "ssim": 1 - _ssim(seen.mean(dim=1, keepdim=True), wanted.mean(dim=1, keepdim=True)),
    }
    return {name: parts[name] for name in stage.loss}


def look(light: Tensor) -> Tensor:
    """A global stand-in for exposure fusion that costs one power: sRGB at +2 EV with a soft shoulder.

    Straight near and below zero, so that an output below zero is still pulled up.
    """
    bright = 4 * light
    coded = torch.where(bright <= 0.0031308, 12.92 * bright, 1.055 * bright.clamp(min=0.003) ** (1 / 2.4) - 0.055)
    return coded / (1 + 0.6 * coded.clamp(min=0))


def _ssim(first: Tensor, second: Tensor) -> Tensor:
    means = [F.avg_pool2d(x, 7, 1) for x in (first, second)]
    squares = [F.avg_pool2d(x * x, 7, 1) - mean * mean for x, mean in zip((first, second), means, strict=True)]
    both = F.avg_pool2d(first * second, 7, 1) - means[0] * means[1]
    light = (2 * means[0] * means[1] + 1e-4) / (means[0].square() + means[1].square() + 1e-4)
    return (light * (2 * both + 9e-4) / (squares[0] + squares[1] + 9e-4)).mean()


def _made(network: Network, planes: Float32) -> Float32:
    return fusion(develop.given(network, planes, network.whole))
