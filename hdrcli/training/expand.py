"""What the networks that expand have in common under training: photographs, losses of light, validation."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdrcli import camera
from hdrcli.color import CLIPPED_CODE, LUMINANCE_709, Float32, srgb_decode, srgb_encode
from hdrcli.errors import ReadError
from hdrcli.layouts import Kind, Layout
from hdrcli.losses import pu21
from hdrcli.metrics import hanji
from hdrcli.network import Network
from hdrcli.training import data, pool, simulate
from hdrcli.training.course import Sample, Scores

KINDS: tuple[Kind, ...] = ("scenes", "ldr-hdr")
VALIDATION = 12  # pictures at most

_BRIGHTEST = 65504.0  # light that validation takes as an answer
_UNITS = 30.0  # PU21 units that count as an error of 1
_FAINTEST = 1e-3  # light added before logarithms, in parts of what clips

Codes = NDArray[np.uint8]
Shoot = Callable[[int, np.random.Generator], tuple[Codes, Float32]]
"""Gives a square photograph of that side, (H, W, 3) uint8, and its light, 1.0 where the camera clips."""

Held = tuple[Tensor, Float32, NDArray[np.bool_]]
"""A photograph held out for validation, (1, 3, H, W) in [0, 1], its light and where it clips, (H, W, 3) and (H, W)."""


# ------------------------------------------------------------------------------------------------- photographs


def photographs(layout: Layout, seed: int) -> Shoot:
    """Where photographs come from: scenes through the virtual camera, or pairs of files."""
    if layout.kind == "ldr-hdr":
        return partial(_from_pairs, layout)
    return partial(_from_scenes, sources(layout, seed))


def sources(layout: Layout, seed: int) -> list[pool.Float16]:
    """Views of scenes, kept in memory: some projected, some cut out."""
    scenes = pool.read_scenes(layout)
    return pool.views(scenes, 6, seed) + pool.windows(scenes, 3, seed + 1)


def _from_scenes(views: list[pool.Float16], size: int, rng: np.random.Generator) -> tuple[Codes, Float32]:
    scene = views[int(rng.integers(len(views)))].astype(np.float32)
    shot = simulate.photograph(simulate.varied(scene, rng), rng, size=size)
    return shot.codes, shot.light


def _from_pairs(layout: Layout, size: int, rng: np.random.Generator) -> tuple[Codes, Float32]:
    codes, light = data.read_pair(*layout.files[int(rng.integers(len(layout.files)))])
    if min(codes.shape[:2]) < size:
        source = layout.files[0][0].parent
        raise ReadError(f"pictures in {source} are smaller than {size} pixels", hint="set a smaller size in the recipe")
    top, left = simulate.where_it_clips(codes >= 255 * CLIPPED_CODE, size, rng)
    cut = slice(top, top + size), slice(left, left + size)
    step = -1 if rng.random() < 0.5 else 1
    return np.ascontiguousarray(codes[cut][:, ::step]), np.ascontiguousarray(light[cut][:, ::step])


def sample(shoot: Shoot, size: int, rng: np.random.Generator) -> Sample:
    """A patch as tensors: codes (3, size, size) in [0, 1], light (3, size, size)."""
    codes, light = shoot(size, rng)
    return {"codes": planes(codes.astype(np.float32) / 255), "light": planes(light)}


def planes(picture: NDArray[np.floating]) -> Float32:
    """(H, W, 3) to (3, H, W)."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)


# ------------------------------------------------------------------------------------------------------ losses


def clipped_pixels(codes: Tensor) -> Tensor:
    """(N, 1, H, W): 1 where a channel of (N, 3, H, W) code values in [0, 1] is clipped, else 0."""
    return (codes.amax(dim=1, keepdim=True) >= CLIPPED_CODE).float()


def pu_error(light: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """RMS difference in PU21 units over (N, 1, H, W) weights, in parts of 30, averaged over pictures."""
    return _rms(_pu_squares(light, wanted), where)


def log_pu_error(light: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """The logarithm of that of each picture, averaged, as a mean of PSNR does; errors below 4 units hardly count."""
    return 0.5 * torch.log(weighted_mean(_pu_squares(light, wanted), where) + 0.02).mean()


def _pu_squares(light: Tensor, wanted: Tensor) -> Tensor:
    return ((pu21(light) - pu21(wanted)) / _UNITS).square().mean(dim=1, keepdim=True)


def stops_error(light: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """RMS difference of log2 luminance over (N, 1, H, W) weights, averaged over pictures."""
    return _rms(stops(light, wanted).square(), where)


def hue_error(light: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """Mean difference of the channels' errors in stops from their mean, over (N, 1, H, W) weights and pictures."""
    colour = torch.log2((light.clamp(min=0) + _FAINTEST) / (wanted + _FAINTEST))
    uneven = (colour - colour.mean(dim=1, keepdim=True)).abs().mean(dim=1, keepdim=True)
    return weighted_mean(uneven, where).mean()


def slopes_error(light: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """Mean gradient of the error in stops between neighbours in (N, 1, H, W) weights, averaged over pictures."""
    error = stops(light, wanted)
    across, down = where[..., 1:] * where[..., :-1], where[..., 1:, :] * where[..., :-1, :]
    steps = (error.diff(dim=3).abs() * across).sum(dim=(1, 2, 3)) + (error.diff(dim=2).abs() * down).sum(dim=(1, 2, 3))
    return (steps / where.sum(dim=(1, 2, 3)).clamp(min=1)).mean()


def stops(light: Tensor, wanted: Tensor) -> Tensor:
    """Differences of log2 luminance: (N, 1, H, W)."""
    weights = torch.from_numpy(LUMINANCE_709).to(light.device)[None, :, None, None]
    found, expected = ((picture * weights).sum(dim=1, keepdim=True).clamp(min=0) for picture in (light, wanted))
    return torch.log2((found + _FAINTEST) / (expected + _FAINTEST))


def _rms(squares: Tensor, where: Tensor) -> Tensor:
    return torch.sqrt(weighted_mean(squares, where) + 1e-6).mean()


def weighted_mean(values: Tensor, where: Tensor) -> Tensor:
    """Of each picture, over weights of their shape: (N,)."""
    return (values * where).sum(dim=(1, 2, 3)) / where.sum(dim=(1, 2, 3)).clamp(min=1)


# ------------------------------------------------------------------------------------------------- validation


def held_out(layout: Layout) -> list[Held]:
    """Fixed photographs for validation, 3 to 15 % clipped, each kind of camera as often as the others."""
    if layout.kind == "ldr-hdr":
        step = -(-len(layout.files) // VALIDATION)
        return [_held(*data.read_pair(*files)) for files in layout.files[::step]]
    rng = np.random.default_rng(2024)
    step = -(-len(layout.files) // VALIDATION)
    views = pool.views(pool.read_scenes(layout)[::step], 1, 7)
    shots = []
    for index, view in enumerate(views):
        kind = camera.KINDS[index % len(camera.KINDS)]
        shot = simulate.photograph(view.astype(np.float32), rng, kind=kind, shares=(0.03, 0.15))
        shots.append(_held(shot.codes, shot.light))
    return shots


def _held(codes: Codes, light: Float32) -> Held:
    image = torch.from_numpy(planes(codes.astype(np.float32) / 255))[None]
    return image, light, codes.max(axis=2) >= 255 * CLIPPED_CODE


def score(network: Network, shots: list[Held]) -> Scores:
    """Mean scores of the protocol of Hanji et al.; `error` weighs the clipped pixels and all pixels together."""
    outputs = []
    for image, _, _ in shots:
        with torch.inference_mode():
            seen = network.whole(image.to(next(network.parameters()).device)).float().cpu()
        outputs.append(np.nan_to_num(_picture(seen), posinf=_BRIGHTEST).clip(0, _BRIGHTEST))
    scores = _means(outputs, shots)
    return {**scores, "error": 10 * scores["stops_clip"] - scores["pu_psnr_clip"] - scores["pu_psnr"]}


def plain(shots: list[Held]) -> Scores:
    """The same scores of the photographs themselves, sRGB decoded."""
    return _means([srgb_decode(_picture(image)) for image, _, _ in shots], shots)


def _means(outputs: list[Float32], shots: list[Held]) -> Scores:
    rows = [
        hanji.scores(hanji.align(output, light, clipped), light, clipped)
        for output, (_, light, clipped) in zip(outputs, shots, strict=True)
    ]
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}


def _picture(image: Tensor) -> Float32:
    """(1, 3, H, W) to (H, W, 3)."""
    return np.asarray(image[0].permute(1, 2, 0).numpy(), np.float32)


def sheet(network: Network, shots: list[Held]) -> NDArray[np.uint8]:
    """Rows of a photograph, then its light by the network and as it was, both two stops down to show highlights."""
    rows = []
    for image, light, clipped in shots[:6]:
        with torch.inference_mode():
            seen = network.whole(image.to(next(network.parameters()).device)).float().cpu()
        output = hanji.align(_picture(seen), light, clipped)
        pictures = [srgb_encode(np.clip(np.float32(0.25) * picture, 0, 1)) for picture in (output, light)]
        rows.append(np.concatenate([_picture(image), *pictures], axis=1))
    return np.asarray(np.rint(255 * np.concatenate(rows)), np.uint8)
