"""Training of `lumen`: simulated 8-bit photographs of HDR scenes; first the curve estimator, then the added light."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli import camera
from hdrcli.color import Float32, luminance, srgb_decode
from hdrcli.errors import ReadError
from hdrcli.layouts import Kind
from hdrcli.metrics import pu
from hdrcli.nets import lumen
from hdrcli.nets.lumen import Lumen
from hdrcli.training import loop, pool
from hdrcli.training.course import Batch, Course, Sample, Scores
from hdrcli.training.data import Data
from hdrcli.training.recipe import Recipe

logger = logging.getLogger(__name__)

Row = tuple[Float32, Float32, np.ndarray, np.ndarray]  # of a shot: statistics, curve, codes and light of some pixels

PIXELS = 512  # per photograph, kept for the estimator's loss
PATCH = 192
PHOTOGRAPHS = 2.4  # simulated for each second of training; a third of them is kept whole for the added light
STEPS_PER_SECOND = 2.0  # assumed of a training that is limited by its steps
_FLATTEST = 1e-4  # of a curve's mean step: keeps the logarithm of a flat stretch finite


@dataclass(frozen=True, slots=True)
class Shot:
    """One simulated photograph. codes: (384, 512, 3) uint8. light: the exposed scene, float16, 1.0 where it clips."""

    codes: np.ndarray
    light: np.ndarray
    curve: Float32  # (256,) light at each code
    found: Float32  # (464,) statistics


OPTIONS: Mapping[str, object] = {}
KINDS: tuple[Kind, ...] = ("scenes",)
LOSSES = ("light",)


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int) -> Course:
    """Trains on the scenes of data.train, validates on those of data.val; the curve estimator is trained at once."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scenes = pool.read_scenes(data.train)
    if len(scenes) < 2:
        raise ReadError(f"{data.train.base} holds one scene alone", hint="some are kept to check the curves on")
    network = Lumen(**recipe.build)
    set_curves(network, np.stack([curve_table(camera.random_curve(rng)) for _ in range(20000)]))
    held_out = validation(pool.read_scenes(data.val))

    count = max(int(min(budget.seconds, budget.steps / STEPS_PER_SECOND) * PHOTOGRAPHS), 12)
    rows, kept = photographs([scene for index, scene in enumerate(scenes) if index % 6], count, rng)
    checks, _ = photographs(scenes[::6], max(count // 6, 2), rng)
    errors = fit_estimator(network, rows, checks, seed)
    logger.info("estimator alone: %s", score(network, held_out))
    truth = coefficients(network, np.stack([shot.curve for shot in kept]))
    return Course(
        network=network,
        sample=lambda stage, rng: _sample(network, kept, truth, errors, rng),
        loss=lambda network, batch, stage: {"light": loss(network, batch)},
        score=lambda network, stage: score(network, held_out),
    )


def photographs(scenes: list[pool.Scene], count: int, rng: np.random.Generator) -> tuple[list[Row], list[Shot]]:
    """What the estimator learns from `count` photographs of scenes, and every third of these photographs."""
    sources = pool.views(scenes, 12, 0) + pool.windows(scenes, 4, 1)
    rows, kept = [], []
    for index in range(count):
        scene = sources[int(rng.integers(len(sources)))].astype(np.float32)
        shot = shoot(vary(scene, rng), rng, camera.KINDS[rng.choice(3, p=[0.3, 0.35, 0.35])])
        rows.append((shot.found, shot.curve, *_pixels(shot, rng)))
        if index % 3 == 0:
            kept.append(shot)
    return rows, kept


def shoot(
    scene: Float32, rng: np.random.Generator, kind: camera.Kind, shares: tuple[float, float] = (0.01, 0.2)
) -> Shot:
    """Photographs a scene with a random response curve, exposed so that a random share of it clips."""
    share = float(np.exp(rng.uniform(np.log(shares[0]), np.log(shares[1]))))
    light = scene * np.float32(camera.exposure_for(scene, share))
    curve = camera.random_curve(rng)
    codes = camera.photograph(light, curve, kind, rng)
    found = lumen.features(tensor(codes))[0].numpy()
    return Shot(codes, np.minimum(light, 60000).astype(np.float16), curve_table(curve), found)


def vary(scene: Float32, rng: np.random.Generator) -> Float32:
    """Another scene out of one: mirrored, zoomed, more or less colourful, tinted; (384, 512, 3) linear RGB."""
    if rng.random() < 0.5:
        scene = scene[:, ::-1]
    rows, columns = scene.shape[:2]
    share = rng.uniform(0.6, 1.0)
    height, width = int(rows * share), int(columns * share)
    top, left = int(rng.integers(0, rows - height + 1)), int(rng.integers(0, columns - width + 1))
    cut = np.ascontiguousarray(scene[top : top + height, left : left + width])
    zoomed = np.asarray(cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)
    grey = luminance(zoomed)[:, :, None]
    coloured = grey + np.float32(rng.uniform(0.5, 1.4)) * (zoomed - grey)
    return np.asarray(np.maximum(coloured, 0) * np.exp(rng.normal(0, 0.12, 3)), np.float32)


def tensor(codes: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(codes)).permute(2, 0, 1)[None].float() / 255


def curve_table(curve: camera.ResponseCurve) -> Float32:
    """Light at each of the 256 codes."""
    return curve.inverse(np.linspace(0, 1, 256, dtype=np.float32))


def log_steps(tables: Float32) -> Float32:
    """(M, 256) curves to the logarithms of their 255 steps, floored where a curve is flat."""
    return np.log(np.maximum(np.diff(tables, axis=1), _FLATTEST / 255)).astype(np.float32)


def set_curves(network: Lumen, tables: Float32) -> None:
    """Fits the network's curve basis to (M, 256) curves: principal components of their log steps."""
    steps = log_steps(tables)
    mean = steps.mean(axis=0)
    _, sizes, axes = np.linalg.svd(steps - mean, full_matrices=False)
    scale = sizes[: lumen.COEFFICIENTS, None] / np.sqrt(len(steps))
    network.curve_mean.copy_(torch.from_numpy(mean))
    network.curve_basis.copy_(torch.from_numpy(axes[: lumen.COEFFICIENTS] * scale))


def coefficients(network: Lumen, tables: Float32) -> Tensor:
    """The (M, 11) coefficients of (M, 256) curves in the network's basis."""
    centred = torch.from_numpy(log_steps(tables)) - network.curve_mean
    centred = centred - centred.mean(dim=1, keepdim=True)
    solution: Tensor = torch.linalg.lstsq(network.curve_basis.T, centred.T).solution
    return solution.T


def _pixels(shot: Shot, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random unclipped pixels: their codes (512, 3) uint8 and their light, float16."""
    codes, light = shot.codes.reshape(-1, 3), shot.light.reshape(-1, 3)
    unclipped = np.flatnonzero(codes.max(axis=1) < 250)
    index = rng.choice(unclipped if len(unclipped) else len(codes), PIXELS)
    return codes[index], light[index]


# ------------------------------------------------------------------------------------------ the curve estimator


def fit_estimator(network: Lumen, rows: list[Row], checks: list[Row], seed: int, epochs: int = 30) -> Tensor:
    """Trains the estimator on `rows`; returns its (M, 11) errors on `checks`, which are of other scenes."""
    found, tables, codes, light = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    network.feature_mean.copy_(found.mean(dim=0))
    network.feature_scale.copy_(found.std(dim=0) + 0.02)
    inputs = network.normalise(found)
    estimator = network.estimator.train()
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=1e-3, weight_decay=0.03)
    batch = min(128, len(rows))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(rows) // batch))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(order) - batch + 1, batch):
            index = order[start : start + batch]
            guess = estimator(_drop_groups(F.dropout(inputs[index], 0.2), generator))
            value = _curve_loss(network.curve(guess), tables[index], codes[index], light[index].float(), guess)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    estimator.eval()
    found, tables, codes, light = (torch.from_numpy(np.stack(column)) for column in zip(*checks, strict=True))
    with torch.no_grad():
        guess = estimator(network.normalise(found))
        unseen = _curve_loss(network.curve(guess), tables, codes, light.float(), guess)
        errors: Tensor = guess - coefficients(network, tables.numpy())
    logger.info("estimator: loss %.3f, on other scenes %.3f", value.item(), unseen.item())
    return errors


def _drop_groups(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Hides gradients or second differences of some pictures, so that no picture hangs on its noise alone."""
    keep = (torch.rand(len(inputs), 2, generator=generator) > 0.15).float()
    colour = torch.ones(len(inputs), lumen.COLOUR_FEATURES)
    detail = keep.repeat_interleave(lumen.DETAIL_FEATURES, dim=1)
    return inputs * torch.cat([colour, detail], dim=1)


def _curve_loss(curve: Tensor, truth: Tensor, codes: Tensor, light: Tensor, guess: Tensor) -> Tensor:
    """log(MSE in PU units + 4) after one robust gain, 2 L1 of the curves, and a small pull to the mean curve.

    The gain also moves the level at which the camera clips, which clipped pixels, a tenth or so of a picture, show.
    """
    linear = torch.gather(curve, 1, codes.long().flatten(1)).view_as(light)
    ratio = torch.log((light.sum(dim=2) + 1e-5) / (linear.sum(dim=2) + 1e-5))
    gain = torch.exp(ratio.median(dim=1).values)[:, None, None]
    clipped = (pu21(gain) - pu21(torch.ones(1))).square()[:, 0, 0]
    error = (pu21(linear * gain) - pu21(light)).square().mean(dim=(1, 2)) + 0.1 * clipped
    return torch.log(error + 4).mean() + 2 * (curve - truth).abs().mean() + 0.002 * guess.square().mean()


def pu21(linear: Tensor) -> Tensor:
    """`hdrcli.metrics.pu.pu21` of relative light for tensors, without its upper clamp."""
    p = pu.PARAMETERS
    light = (pu.WHITE * linear).clamp(min=0.005) ** p[3]
    return p[6] * (((p[0] + p[1] * light) / (1 + p[2] * light)) ** p[4] - p[5])


# --------------------------------------------------------------------------------------------- the added light


def _sample(network: Lumen, shots: list[Shot], truth: Tensor, errors: Tensor, rng: np.random.Generator) -> Sample:
    """A patch of a photograph, linearised by its true curve with an error like the estimator's own."""
    for _ in range(50):
        index = int(rng.integers(len(shots)))
        shot = shots[index]
        top, left = (int(rng.integers(0, (size - PATCH) // 8 + 1)) * 8 for size in shot.codes.shape[:2])
        codes = shot.codes[top : top + PATCH, left : left + PATCH]
        if (codes.max(axis=2) >= 250).mean() >= 0.02:
            break
    error = errors[int(rng.integers(len(errors)))] * float(rng.random() < 0.8)
    with torch.no_grad():
        curve = network.curve((truth[index] + error)[None])[0]
    light = torch.from_numpy(shot.light[top : top + PATCH, left : left + PATCH])
    return {
        "codes": torch.from_numpy(codes).permute(2, 0, 1).float() / 255,
        "light": light.permute(2, 0, 1).float(),
        "curve": curve,
        "found": torch.from_numpy(shot.found),
    }


def loss(network: nn.Module, batch: Batch) -> Tensor:
    """Per picture, over clipped pixels: RMS in PU units, RMS of log2 luminance, and the gradient of the log error."""
    assert isinstance(network, Lumen)
    tile, light = batch["codes"], batch["light"]
    linear = lumen.linearise(tile, batch["curve"])
    clipped = ((255 * tile - 249.5) / 5).clamp(0, 1)
    summary = torch.tanh(network.summary(network.normalise(batch["found"])))
    output = network.add_light(tile, linear, clipped, summary)
    where = (tile.amax(dim=1, keepdim=True) >= 250 / 255).float()
    count = where.sum(dim=(1, 2, 3)).clamp(min=1)
    units = ((pu21(output) - pu21(light)) / 30).square().mean(dim=1, keepdim=True)
    weights = torch.tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)
    ratio = torch.log2(
        ((output * weights).sum(dim=1, keepdim=True) + 1e-3) / ((light * weights).sum(dim=1, keepdim=True) + 1e-3)
    )
    inside_x, inside_y = where[..., 1:] * where[..., :-1], where[..., 1:, :] * where[..., :-1, :]
    slopes = (ratio.diff(dim=3).abs() * inside_x).sum(dim=(1, 2, 3)) + (ratio.diff(dim=2).abs() * inside_y).sum(
        dim=(1, 2, 3)
    )
    rms = [torch.sqrt((value * where).sum(dim=(1, 2, 3)) / count + 1e-6) for value in (units, ratio.square())]
    return (rms[0] + rms[1] + 0.3 * slopes / count).mean()


# ------------------------------------------------------------------------------------------------- validation


def validation(scenes: list[pool.Scene]) -> list[tuple[Tensor, Float32, np.ndarray, Tensor]]:
    """Each held-out scene in all three kinds: the picture as a tensor, its light, where it clips, its true curve."""
    rng = np.random.default_rng(2024)
    shots = []
    for view in pool.views(scenes, 1, 7):
        for kind in camera.KINDS:
            shot = shoot(view.astype(np.float32), rng, kind, (0.03, 0.15))
            clipped, curve = shot.codes.max(axis=2) >= 250, torch.from_numpy(shot.curve)[None]
            shots.append((tensor(shot.codes), shot.light.astype(np.float32), clipped, curve))
    return shots


def score(network: nn.Module, held_out: list[tuple[Tensor, Float32, np.ndarray, Tensor]]) -> Scores:
    """Mean scores over the kinds, beside those of the pictures as they came.

    `error` judges the added light alone, under the true curve, and falls as it gets better.
    """
    assert isinstance(network, Lumen)
    rows, plain, known = [], [], []
    for image, light, clipped, curve in held_out:
        with torch.inference_mode():
            context = network.prepare(image)
            output, told = (network(image, given) for given in (context, {**context, "curve": curve}))
        rows.append(judge(_array(output), light, clipped))
        known.append(judge(_array(told), light, clipped))
        plain.append(judge(srgb_decode(_array(image)), light, clipped))
    mean, truth, before = (np.mean(column, axis=0) for column in (rows, known, plain))
    kinds = [f"{np.mean([row[0] for row in rows[k::3]]):.2f}" for k in range(3)]
    logger.info("pu_psnr by kind %s; unprocessed %s", " ".join(kinds), np.round(before, 2))
    return {
        "pu_psnr": float(mean[0]),
        "pu_psnr_clip": float(mean[1]),
        "stops_clip": float(mean[2]),
        "stops_clip_known_curve": float(truth[2]),
        "error": float(truth[2] * 10 - truth[1]),
    }


def _array(image: Tensor) -> Float32:
    """(1, 3, H, W) to (H, W, 3)."""
    return np.asarray(image[0].permute(1, 2, 0).numpy(), np.float32)


def judge(output: Float32, light: Float32, clipped: np.ndarray) -> tuple[float, float, float]:
    """PU21 PSNR over all and over clipped pixels, and RMS stops over clipped ones, after one gain."""
    aligned = np.float32(pu.gain(output, light, ~clipped)) * output
    return pu.pu_psnr(aligned, light), pu.pu_psnr(aligned, light, clipped), pu.stops(aligned, light, clipped)
