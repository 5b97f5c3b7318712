"""Training of `lumen`: simulated 8-bit photographs of HDR scenes; the curve estimator, the added light, the cleaner.

The curve estimator is cross-fitted: the photographs of a quarter of the scenes are kept from each of its members. What
a member guesses for scenes that it has not seen is as wrong as guesses for new pictures are, so the added light is
trained on these guesses, and judged after the one gain that the protocols allow.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli import camera
from hdrcli.color import CLIPPED_CODE, LUMINANCE_709, Float32, luminance
from hdrcli.errors import ReadError
from hdrcli.layouts import Kind
from hdrcli.losses import pu21
from hdrcli.nets import lumen
from hdrcli.nets._colours import ratios
from hdrcli.nets.lumen import Lumen
from hdrcli.tiling import everything
from hdrcli.training import expand, loop, pool, simulate
from hdrcli.training.course import Batch, Course, Losses, Sample
from hdrcli.training.data import Data
from hdrcli.training.recipe import Recipe, Stage

logger = logging.getLogger(__name__)

OPTIONS: Mapping[str, object] = {}
KINDS: tuple[Kind, ...] = ("scenes",)
LOSSES = ("units", "stops", "slopes", "hue", "noise")

PIXELS = 512  # per photograph, kept for the estimator's loss
PATCH = 192
PHOTOGRAPHS = 2.5  # simulated for each second of training; a third of them is kept whole for the added light
STEPS_PER_SECOND = 2.0  # assumed of a training that is limited by its steps
EPOCHS = 30  # of the estimator
REFLECTED = 0.25  # of the photographs have another view reflected in them
_FLATTEST = 1e-4  # of a curve's mean step: keeps the logarithm of a flat stretch finite
_LUMINANCE = torch.from_numpy(LUMINANCE_709.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Rows:
    """What the estimator learns from M photographs.

    scene: (M,) number of the scene. found: (M, 464) statistics. curve: (M, 256) light at each code. codes, light:
    (M, 512, 3) uint8 and float16, some unclipped pixels.
    """

    scene: Tensor
    found: Tensor
    curve: Tensor
    codes: Tensor
    light: Tensor

    def __getitem__(self, index: Tensor) -> "Rows":
        return Rows(*(getattr(self, name)[index] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Shot:
    """A whole photograph. codes: (H, W, 3) uint8. light: (H, W, 3) float16, 1.0 where the camera clips.

    found: (464,) statistics. curve, guess: (256,) its curve, and the one guessed for it. gain: what aligns light by the
    guess with the light.
    """

    codes: np.ndarray
    light: np.ndarray
    found: Tensor
    curve: Tensor
    guess: Tensor
    gain: Tensor


def course(data: Data, recipe: Recipe, budget: loop.Budget, seed: int) -> Course:
    """Trains on the scenes of data.train, validates on those of data.val; the curve estimator is trained at once."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scenes = pool.read_scenes(data.train)
    if len(scenes) < lumen.MEMBERS:
        raise ReadError(
            f"{data.train.base} holds {len(scenes)} scenes", hint=f"lumen learns from {lumen.MEMBERS} scenes or more"
        )
    network = Lumen(**recipe.build)
    held_out = expand.held_out(data.val)
    count = max(int(min(budget.seconds, budget.steps / STEPS_PER_SECOND) * PHOTOGRAPHS), 16)
    rows, kept = photographs(scenes, count, rng)
    guesses = fit_estimator(network, rows, seed)
    aligned = gains(guesses, rows)
    logger.info(
        "estimator: gains of unseen scenes are off by %.2f stops RMS", torch.log2(aligned).square().mean().sqrt()
    )
    tables = (rows.found, rows.curve, guesses, aligned)
    shots = [Shot(codes, light, *(table[index] for table in tables)) for index, codes, light in kept]
    for parameter in network.estimator.parameters():
        parameter.requires_grad_(False)
    return Course(
        network=network,
        sample=lambda stage, rng: noise_sample(shots, rng) if "noise" in stage.loss else sample(shots, rng),
        loss=loss,
        score=lambda network, stage: expand.score(network, held_out),
        sheet=lambda network: expand.sheet(network, held_out),
        plain=expand.plain(held_out),
    )


def photographs(
    scenes: list[pool.Scene], count: int, rng: np.random.Generator
) -> tuple[Rows, list[tuple[int, np.ndarray, np.ndarray]]]:
    """What the estimator learns from `count` photographs of scenes, and every third whole: its row, codes, light."""
    sources = []
    for number, scene in enumerate(scenes):
        for turn in range(2 if scene.sky else 16):
            changed = recontrasted(scene, rng)
            seed = 100 * number + turn
            cut = pool.views([changed], 1, seed) if turn < 11 else pool.windows([changed], 1, seed)
            sources += [(number, view) for view in cut]
    rows, kept = [], []
    for index in range(count):
        (number, view), (_, other) = (sources[index] for index in rng.integers(len(sources), size=2))
        light = view.astype(np.float32)
        if rng.random() < REFLECTED:
            light = simulate.reflected(light, other.astype(np.float32), rng)
        shot = simulate.photograph(simulate.varied(light, rng), rng)
        rows.append((number, lumen.features(_image(shot.codes))[0], curve_table(shot.curve), *_pixels(shot, rng)))
        if index % 3 == 0:
            kept.append((index, shot.codes, shot.light.astype(np.float16)))
    columns = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    return Rows(*columns), kept


def recontrasted(scene: pool.Scene, rng: np.random.Generator) -> pool.Scene:
    """Two scenes of three with more or less contrast, their colours kept.

    It keeps the estimator from taking a dark scene for a steep curve.
    """
    if rng.random() < 1 / 3:
        return scene
    light = luminance(scene.pixels)
    relative = np.maximum(light / max(float(np.median(light)), 1e-5), 1e-4)
    gain = relative ** np.float32(np.exp(rng.normal(0, 0.28)) - 1)
    return replace(scene, pixels=scene.pixels * gain[:, :, None])


def curve_table(curve: camera.ResponseCurve) -> Float32:
    """Light at each of the 256 codes."""
    return curve.inverse(np.linspace(0, 1, 256, dtype=np.float32))


def set_curves(network: Lumen, tables: Tensor) -> None:
    """Fits the network's curve basis to (M, 256) curves: principal components of the logarithms of their steps."""
    steps = torch.log(tables.diff(dim=1).clamp(min=_FLATTEST / 255))
    mean = steps.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(steps - mean, full_matrices=False)
    count = min(lumen.COEFFICIENTS, len(sizes))
    network.curve_mean.copy_(mean)
    network.curve_basis.zero_()
    network.curve_basis[:count] = axes[:count] * sizes[:count, None] / len(steps) ** 0.5


def _image(codes: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(expand.planes(codes))[None] / 255


def _pixels(shot: simulate.Photograph, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random unclipped pixels: their codes (512, 3) uint8 and their light, float16."""
    codes, light = shot.codes.reshape(-1, 3), shot.light.reshape(-1, 3)
    unclipped = np.flatnonzero(codes.max(axis=1) < 255 * CLIPPED_CODE)
    index = rng.choice(unclipped if len(unclipped) else len(codes), PIXELS)
    return codes[index], light[index].astype(np.float16)


# ------------------------------------------------------------------------------------------ the curve estimator


def fit_estimator(network: Lumen, rows: Rows, seed: int) -> Tensor:
    """Trains every member on the scenes that are not its own; returns what each guesses for its own: (M, 256)."""
    set_curves(network, rows.curve)
    network.feature_mean.copy_(rows.found.mean(dim=0))
    network.feature_scale.copy_(rows.found.std(dim=0) + 0.02)
    guesses = torch.empty(len(rows.found), 256)
    for number, member in enumerate(network.estimator.members):
        own = rows.scene % lumen.MEMBERS == number
        _fit_member(network, member, rows[~own], seed + number)
        with torch.no_grad():
            guesses[own] = network.curve(member(network.normalise(rows.found[own])))
    network.estimator.eval()
    return guesses


def _fit_member(network: Lumen, member: nn.Module, rows: Rows, seed: int) -> None:
    member.train()
    generator = torch.Generator().manual_seed(seed)
    batch = min(128, len(rows.found))
    optimizer = torch.optim.AdamW(member.parameters(), lr=1e-3, weight_decay=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (len(rows.found) // batch))
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows.found), generator=generator)
        for start in range(0, len(order) - batch + 1, batch):
            some = rows[order[start : start + batch]]
            seen = F.dropout(network.normalise(some.found), 0.15)
            value = _curve_loss(network, member(_drop_groups(seen, generator)), some)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    member.eval()


def _drop_groups(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Hides gradients or second differences of some pictures, so that no picture hangs on its noise alone."""
    keep = (torch.rand(len(inputs), 2, generator=generator) > 0.15).float()
    colour = torch.ones(len(inputs), lumen.COLOUR_FEATURES)
    detail = keep.repeat_interleave(lumen.DETAIL_FEATURES, dim=1)
    return inputs * torch.cat([colour, detail], dim=1)


def _curve_loss(network: Lumen, guess: Tensor, rows: Rows) -> Tensor:
    """log(MSE in PU units + 4) after one robust gain, 2 L1 of the curves, and a small pull to the mean curve.

    The gain also moves the level at which the camera clips, which clipped pixels, a tenth or so of a picture, show.
    """
    curve = network.curve(guess)
    linear, light = _looked_up(curve, rows), rows.light.float()
    gain = _gain(linear, light)
    clipped = (pu21(gain) - pu21(torch.ones(1))).square()
    error = (pu21(linear * gain[:, None, None]) - pu21(light)).square().mean(dim=(1, 2)) + 0.1 * clipped
    return torch.log(error + 4).mean() + 2 * (curve - rows.curve).abs().mean() + 0.002 * guess.square().mean()


def gains(curves: Tensor, rows: Rows) -> Tensor:
    """What aligns photographs, linearised by (M, 256) curves, with their light: (M,)."""
    return _gain(_looked_up(curves, rows), rows.light.float())


def _looked_up(curves: Tensor, rows: Rows) -> Tensor:
    return torch.gather(curves, 1, rows.codes.long().flatten(1)).view(rows.codes.shape)


def _gain(linear: Tensor, light: Tensor) -> Tensor:
    """The median ratio of luminances of (M, P, 3) pixels, as in the protocols."""
    ratio = torch.log((light @ _LUMINANCE + 1e-5) / (linear @ _LUMINANCE + 1e-5))
    return torch.exp(ratio.median(dim=1).values)


# --------------------------------------------------------------------------------------------- the added light


def sample(shots: list[Shot], rng: np.random.Generator) -> Sample:
    """A patch of a photograph of which 2 % or more clips; one in four is seen at twice its size."""
    for _ in range(50):
        shot = shots[int(rng.integers(len(shots)))]
        size = PATCH if rng.random() < 0.75 else PATCH // 2
        top, left = (int(rng.integers(0, (side - size) // 8 + 1)) * 8 for side in shot.codes.shape[:2])
        codes = shot.codes[top : top + size, left : left + size]
        if (codes.max(axis=2) >= 255 * CLIPPED_CODE).mean() >= 0.02:
            break
    light = shot.light[top : top + size, left : left + size].astype(np.float32)
    if size < PATCH:
        codes = np.asarray(cv2.resize(codes, (PATCH, PATCH), interpolation=cv2.INTER_CUBIC))
        light = np.asarray(cv2.resize(light, (PATCH, PATCH), interpolation=cv2.INTER_LINEAR), np.float32)
    if rng.random() < 0.5:
        codes, light = codes[:, ::-1], light[:, ::-1]
    return {
        "codes": expand.planes(codes) / np.float32(255),
        "light": expand.planes(light),
        "curve": shot.guess,
        "gain": shot.gain,
        "found": shot.found,
    }


def loss(network: nn.Module, batch: Batch, stage: Stage) -> Losses:
    """Per picture, over pixels that are clipped in part, but for noise, which is a stage of its own.

    units: logarithm of the RMS in PU units / 30. stops: RMS of log2 luminance. slopes: mean gradient of the error in
    stops. hue: mean error of the channels' stops against each other. noise: see `noise_error`.
    """
    assert isinstance(network, Lumen)
    if "noise" in stage.loss:
        return {"noise": noise_error(network, batch["codes"], batch["clean"])}
    tile, light = batch["codes"], batch["light"]
    linear, clipped = lumen.linearise(tile, batch["curve"]), lumen.clipping(tile)
    found = F.dropout(network.normalise(batch["found"]), 0.2)  # or it learns which scene it sees
    summary = torch.tanh(network.summary(found))
    raised = network.raised(tile, linear, clipped, summary, everything(tile))
    output = lumen.relit(linear, tile, clipped, *ratios(linear, tile, clipped), raised)
    output = output * batch["gain"].view(-1, 1, 1, 1)
    where = (clipped.amax(dim=1, keepdim=True) > 0).float()
    parts = {
        "units": expand.log_pu_error(output, light, where),
        "stops": expand.stops_error(output, light, where),
        "slopes": expand.slopes_error(output, light, where),
        "hue": expand.hue_error(output, light, where),
    }
    return {name: parts[name] for name in stage.loss}


# ------------------------------------------------------------------------------------------------- the cleaner


def noise_sample(shots: list[Shot], rng: np.random.Generator) -> Sample:
    """A patch of a photograph, and the codes that it would have without noise and processing."""
    shot = shots[int(rng.integers(len(shots)))]
    top, left = (int(rng.integers(0, (side - PATCH) // 8 + 1)) * 8 for side in shot.codes.shape[:2])
    cut = slice(top, top + PATCH), slice(left, left + PATCH)
    clean = np.interp(shot.light[cut], shot.curve.numpy(), np.linspace(0, 1, len(shot.curve)))
    step = -1 if rng.random() < 0.5 else 1
    return {
        "codes": expand.planes(shot.codes[cut][:, ::step]) / np.float32(255),
        "clean": expand.planes(clean[:, ::step]),
    }


def noise_error(network: Lumen, codes: Tensor, clean: Tensor) -> Tensor:
    """The mean logarithm of the RMS of cleaned codes where they are not clipped; below half a code it hardly counts."""
    clipped = lumen.clipping(codes)
    error = 255 * (lumen.cleaned(codes, clipped, network.cleaner(codes, everything(codes))) - clean)
    return 0.5 * torch.log(expand.weighted_mean(error.square(), 1 - clipped.float()) + 0.3).mean()
