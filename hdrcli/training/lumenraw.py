"""Training of `lumenraw`: simulated mosaics of HDR scenes to the clean linear scene, judged in the finished look."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hdrcli import camera, sensor
from hdrcli.color import Float32, luminance
from hdrcli.metrics import pictures
from hdrcli.nets.lumenraw import LumenRaw, noise_model
from hdrcli.network import StateDict
from hdrcli.tonemap.fusion import fusion
from hdrcli.training import loop, pool

BATCH = 2
CROP = (256, 320)  # of each simulated shot


def fit(data: Path, checkpoint: Path, seconds: float, seed: int) -> tuple[StateDict, loop.Scores]:
    """Trains on the scenes of data/train, validates on those of data/val; returns the best weights and their scores."""
    torch.manual_seed(seed)
    scenes = pool.read_scenes(data / "train")
    sources = pool.views(scenes, 6, seed) + pool.windows(scenes, 6, seed + 1)
    held_out = validation(pool.read_scenes(data / "val"))
    network = LumenRaw().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = _batches(sources, np.random.default_rng(seed))
    plan = loop.Plan(seconds=seconds, rate=1e-3)
    return loop.train(network, batches, loss, lambda net: score(net, held_out), "error", plan, checkpoint)


def sample(scene: Float32, rng: np.random.Generator, *, bits: int | None = None) -> tuple[Float32, Float32]:
    """One simulated shot: (4, h, w) canonical planes and the (H, W, 3) linear scene, mid-grey at 0.18."""
    shares = np.exp(rng.uniform(np.log(0.001), np.log(0.05)))
    mosaic = camera.record(scene, camera.random_sensor(rng, bits=bits), float(shares), rng)
    mean = np.exp(np.mean(np.log(np.maximum(luminance(scene), 1e-6))))
    return sensor.canonical(mosaic), scene * np.float32(sensor.MIDDLE_GREY / mean)


def _batches(sources: list[pool.Float16], rng: np.random.Generator) -> Iterator[loop.Batch]:
    endless = pool.shuffled(sources, rng)
    while True:
        pairs = [_crop(*sample(_jitter(next(endless), rng), rng), rng) for _ in range(BATCH)]
        planes = torch.from_numpy(np.stack([planes for planes, _ in pairs]))
        target = torch.from_numpy(np.stack([scene for _, scene in pairs])).permute(0, 3, 1, 2)
        yield {"planes": planes.contiguous(memory_format=torch.channels_last), "target": target}


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


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
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


def score(network: nn.Module, held_out: list[tuple[Float32, Float32]]) -> loop.Scores:
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
