"""Training of `lumenraw`: simulated mosaics of HDR scenes to the clean linear scene, judged in the finished look."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from hdrcli import camera, sensor
from hdrcli.color import Float32, luminance
from hdrcli.layouts import Kind
from hdrcli.metrics import pictures
from hdrcli.nets.lumenraw import LumenRaw, noise_model
from hdrcli.tonemap.fusion import fusion
from hdrcli.training import loop, pool
from hdrcli.training.course import Batch, Course, Sample, Scores
from hdrcli.training.data import Data
from hdrcli.training.recipe import Recipe

CROP = (256, 320)  # of each simulated shot


OPTIONS: Mapping[str, object] = {}
KINDS: tuple[Kind, ...] = ("scenes",)
LOSSES = ("look",)


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int) -> Course:
    """Trains on the scenes of data.train, validates on those of data.val."""
    scenes = pool.read_scenes(data.train)
    sources = pool.views(scenes, 6, seed) + pool.windows(scenes, 6, seed + 1)
    held_out = validation(pool.read_scenes(data.val))
    torch.manual_seed(seed)
    return Course(
        network=LumenRaw(**recipe.build),
        sample=lambda stage, rng: _sample(sources, rng),
        loss=lambda network, batch, stage: {"look": loss(network, batch)},
        score=lambda network, stage: score(network, held_out),
    )


def sample(scene: Float32, rng: np.random.Generator, *, bits: int | None = None) -> tuple[Float32, Float32]:
    """One simulated shot: (4, h, w) canonical planes and the (H, W, 3) linear scene, mid-grey at 0.18."""
    shares = np.exp(rng.uniform(np.log(0.001), np.log(0.05)))
    mosaic = camera.record(scene, camera.random_sensor(rng, bits=bits), float(shares), rng)
    mean = np.exp(np.mean(np.log(np.maximum(luminance(scene), 1e-6))))
    return sensor.canonical(mosaic), scene * np.float32(sensor.MIDDLE_GREY / mean)


def _sample(sources: list[pool.Float16], rng: np.random.Generator) -> Sample:
    scene = sources[int(rng.integers(len(sources)))].astype(np.float32)
    planes, target = _crop(*sample(_jitter(scene, rng), rng), rng)
    return {"planes": planes, "target": np.ascontiguousarray(target.transpose(2, 0, 1))}


def _crop(planes: Float32, scene: Float32, rng: np.random.Generator) -> tuple[Float32, Float32]:
    height, width = CROP[0] // 2, CROP[1] // 2
    top, left = (int(rng.integers(0, room + 1)) for room in (planes.shape[1] - height, planes.shape[2] - width))
    return (
        planes[:, top : top + height, left : left + width],
        scene[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)],
    )


def _jitter(scene: Float32, rng: np.random.Generator) -> Float32:
    """Flips, and tints a little, so that colours differ more than the scenes at hand do."""
    if rng.random() < 0.5:
        scene = scene[::-1]
    if rng.random() < 0.5:
        scene = scene[:, ::-1]
    return np.ascontiguousarray(scene * np.exp(rng.normal(0, 0.1, 3)).astype(np.float32))


def loss(network: nn.Module, batch: Batch) -> Tensor:
    """Mean error of the picture as the fusion would about show it, and of its colour differences."""
    planes = batch["planes"]
    context = {"noise": noise_model(planes)}
    seen, wanted = look(network(planes, context)), look(batch["target"])
    error = seen - wanted
    colour = error[:, 0::2] - error[:, 1:2]
    return error.abs().mean() + 0.5 * colour.abs().mean()


def look(light: Tensor) -> Tensor:
    """A global stand-in for exposure fusion that costs one power: sRGB at +2 EV with a soft shoulder.

    Straight near and below zero, so that an output below zero is still pulled up.
    """
    bright = 4 * light
    coded = torch.where(bright <= 0.0031308, 12.92 * bright, 1.055 * bright.clamp(min=0.003) ** (1 / 2.4) - 0.055)
    return coded / (1 + 0.6 * coded.clamp(min=0))


def validation(scenes: list[pool.Scene]) -> list[tuple[Float32, Float32]]:
    """One fixed 10-bit shot of each scene: canonical planes and the finished target picture."""
    rng = np.random.default_rng(2024)
    shots = [sample(view.astype(np.float32), rng, bits=10) for view in pool.views(scenes, 1, 7)]
    return [(planes, fusion(scene)) for planes, scene in shots]


def score(network: nn.Module, held_out: list[tuple[Float32, Float32]]) -> Scores:
    """Mean PSNR, SSIM and CIE dE76 of the finished pictures; `error` is what training minimises: minus the PSNR."""
    rows = []
    for planes, target in held_out:
        with torch.inference_mode():
            linear = network.whole(torch.from_numpy(planes)[None])[0].permute(1, 2, 0).numpy()  # type: ignore[operator]
        finished = fusion(np.ascontiguousarray(linear))
        rows.append(
            (pictures.psnr(finished, target), pictures.ssim(finished, target), pictures.delta_e76(finished, target))
        )
    psnr, ssim, delta = np.mean(rows, axis=0)
    return {"psnr": float(psnr), "ssim": float(ssim), "dE76": float(delta), "error": -float(psnr)}
