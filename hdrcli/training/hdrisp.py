"""Training of `hdrisp` from its coarsest level to the finest, as the author does.

Samples are simulated mosaics and the finished pictures of the unclipped scenes, or RAW and picture pairs. Options of a
stage: level, 4 to 0; size, height and width of the finished picture, multiples of 16; whole, whether views are shrunk
to that size, so that statistics are those of whole pictures, or cropped.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hdrcli.color import Float32
from hdrcli.errors import ReadError
from hdrcli.layouts import Kind, Layout
from hdrcli.losses import hellinger, rgb_uv_histogram
from hdrcli.metrics.similarity import ms_ssim
from hdrcli.nets.hdrisp import HdrIsp
from hdrcli.network import Network
from hdrcli.training import develop, loop, pool, simulate
from hdrcli.training.course import Batch, Course, Losses, Sample, Scores
from hdrcli.training.data import Data, read_raw_pair
from hdrcli.training.recipe import Recipe, Stage
from hdrcli.training.vgg import Vgg

KINDS: tuple[Kind, ...] = ("scenes", "raw-picture")
Size = tuple[int, int]
Shoot = Callable[[Size | None, np.random.Generator], tuple[Float32, Float32]]
"""Gives planes (4, h, w) and the finished picture (2h, 2w, 3); simulated ones of that size, if one is named."""

OPTIONS: Mapping[str, Any] = {"level": 0, "size": [192, 256], "whole": True}
DIFFERENCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda seen, wanted: (seen - wanted).square().mean(),
    "l1": lambda seen, wanted: (seen - wanted).abs().mean(),
    "ms_ssim": lambda seen, wanted: 1 - ms_ssim(seen, wanted, data_range=1.0).mean(),
    "histogram": lambda seen, wanted: hellinger(rgb_uv_histogram(seen), rgb_uv_histogram(wanted)).mean(),
}
LOSSES = (*DIFFERENCES, "perceptual")
VALIDATION = 12  # pictures at most

_CONTRAST = 3.8  # slope of the line from asinh-coded light to the logit of the finished picture


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int, vgg: Vgg | None = None) -> Course:
    shoot, held_out = shots(data.train, seed), validation(data.val)
    torch.manual_seed(seed)
    network = HdrIsp(**recipe.build)
    begin(network)
    return Course(
        network=network,
        sample=lambda stage, rng: sample(shoot, stage, rng),
        loss=lambda network, batch, stage: loss(network, batch, stage, vgg),
        score=lambda network, stage: score(network, stage, held_out),
        sheet=lambda network: sheet(network, held_out),
    )


def begin(network: HdrIsp) -> None:
    """Lets a network with a skip begin with the picture of level 1 and half of a bilinear demosaic's detail."""
    if network.skip is None or network.trust is None:
        return
    places = torch.arange(6.0)
    with torch.no_grad():
        network.skip.weight.zero_()
        for plane, row, column, channel in ((0, 1, 1, 2), (1, 0, 1, 1), (2, 0, 0, 0), (3, 1, 0, 1)):
            down, across = ((places - 2 - offset).abs() for offset in (row, column))
            if channel == 1:
                kernel = (1 - (down[:, None] + across) * 0.75).clamp(min=0)  # itself, and a quarter to each neighbour
            else:
                kernel = (1 - down / 2).clamp(min=0)[:, None] * (1 - across / 2).clamp(min=0)
            network.skip.weight[plane, channel] = _CONTRAST * (kernel - kernel.mean())
        for name in ("out.0.conv", "trust.conv"):
            network.get_parameter(f"{name}.weight").mul_(0.1)
            network.get_parameter(f"{name}.bias").zero_()


def shots(layout: Layout, seed: int) -> Shoot:
    """Where shots come from: scenes through the virtual camera, or pairs of files."""
    if layout.kind == "raw-picture":
        return lambda size, rng: read_raw_pair(*layout.files[int(rng.integers(len(layout.files)))])
    scenes = pool.read_scenes(layout)
    return partial(_simulated, pool.views(scenes, 6, seed) + pool.windows(scenes, 6, seed + 1))


def _simulated(views: list[pool.Float16], size: Size | None, rng: np.random.Generator) -> tuple[Float32, Float32]:
    scene = simulate.varied(views[int(rng.integers(len(views)))].astype(np.float32), rng)
    scene = simulate.recoloured(scene, rng)
    if rng.random() < simulate.DRAWN:
        scene = simulate.drawn_on(scene, rng)
    if size is not None:
        scene = np.asarray(cv2.resize(scene, size[::-1], interpolation=cv2.INTER_AREA), np.float32)
    planes, light = simulate.mosaic(scene, rng)
    return planes, simulate.finished(light)


def sample(shoot: Shoot, stage: Stage, rng: np.random.Generator) -> Sample:
    """One shot: planes (4, h, w), and its finished picture (3, 2h, 2w)."""
    options = {**OPTIONS, **stage.options}
    height, width = options["size"]
    planes, target = shoot((height, width) if options["whole"] else None, rng)
    if target.shape[0] < height or target.shape[1] < width:
        raise ReadError(f"a picture is smaller than {width} x {height}", hint="set a smaller size in the recipe")
    top, left = (
        int(rng.integers(0, (side - size) // 2 + 1))
        for side, size in zip(target.shape[:2], (height, width), strict=True)
    )
    planes = planes[:, top : top + height // 2, left : left + width // 2]
    target = target[2 * top : 2 * top + height, 2 * left : 2 * left + width]
    return {"planes": np.ascontiguousarray(planes), "target": np.ascontiguousarray(target.transpose(2, 0, 1))}


def loss(network: Network, batch: Batch, stage: Stage, vgg: Vgg | None = None) -> Losses:
    """Differences between the picture of a level and the target of its size."""
    assert isinstance(network, HdrIsp)
    level = stage.options.get("level", OPTIONS["level"])
    seen = network.at_level(batch["planes"], level).float()
    wanted = F.avg_pool2d(batch["target"], 2**level)
    known = dict(DIFFERENCES)
    if vgg is not None:
        known["perceptual"] = vgg
    return {name: known[name](seen, wanted) for name in stage.loss}


def validation(layout: Layout) -> list[develop.Held]:
    """Some pairs, or a shot of each of some scenes."""
    some = replace(layout, files=layout.files[:: -(-len(layout.files) // VALIDATION)])
    if layout.kind == "raw-picture":
        return [_even(*read_raw_pair(*files)) for files in some.files]
    return develop.held_out(pool.read_scenes(some))


def _even(planes: Float32, target: Float32) -> develop.Held:
    """The pair without what lies beyond multiples of 8 planes' pixels, which the network takes."""
    height, width = (side // 8 * 8 for side in planes.shape[1:])
    return planes[:, :height, :width], target[: 2 * height, : 2 * width]


def score(network: Network, stage: Stage, held_out: list[develop.Held]) -> Scores:
    """Scores of the pictures of the stage's level."""
    assert isinstance(network, HdrIsp)
    level = stage.options.get("level", OPTIONS["level"])
    seen = partial(network.at_level, level=level)
    return develop.scores((develop.given(network, planes, seen), _shrunk(target, level)) for planes, target in held_out)


def _shrunk(picture: Float32, level: int) -> Float32:
    """The picture at the size of a level."""
    planes = F.avg_pool2d(torch.from_numpy(picture).permute(2, 0, 1)[None], 2**level)
    return np.ascontiguousarray(planes[0].permute(1, 2, 0).numpy())


def sheet(network: Network, held_out: list[develop.Held]) -> NDArray[np.uint8]:
    """Rows of what the sensor saw, the network's picture, and the target."""
    return simulate.sheet([(planes, develop.given(network, planes, network.whole), to) for planes, to in held_out[:6]])
