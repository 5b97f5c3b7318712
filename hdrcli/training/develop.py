"""What the networks that develop have in common under training: validation in the finished look."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from hdrcli.color import Float32
from hdrcli.metrics import pictures
from hdrcli.network import Network
from hdrcli.training import pool, simulate
from hdrcli.training.course import Scores

Held = tuple[Float32, Float32]
"""Canonical planes (4, h, w) held out for validation, and their finished picture (2h, 2w, 3)."""


def held_out(scenes: list[pool.Scene]) -> list[Held]:
    """One fixed 10-bit shot of each scene."""
    rng = np.random.default_rng(2024)
    shots = [simulate.mosaic(view.astype(np.float32), rng, bits=10) for view in pool.views(scenes, 1, 7)]
    return [(planes, simulate.finished(light)) for planes, light in shots]


def given(network: Network, planes: Float32, run: Callable[[Tensor], Tensor]) -> Float32:
    """What `run` makes of planes (4, h, w) on the network's device: (H, W, 3)."""
    with torch.inference_mode():
        image = torch.from_numpy(planes)[None].to(next(network.parameters()).device)
        made = run(image)[0].permute(1, 2, 0).float().cpu().numpy()
    return np.ascontiguousarray(made)


def scores(pairs: Iterable[tuple[Float32, Float32]]) -> Scores:
    """Mean PSNR, SSIM and CIE dE76 of pictures beside what they should be; `error` is minus the PSNR."""
    rows = [
        (pictures.psnr(made, wanted), pictures.ssim(made, wanted), pictures.delta_e76(made, wanted))
        for made, wanted in pairs
    ]
    psnr, ssim, delta = (float(value) for value in np.mean(rows, axis=0))
    return {"psnr": psnr, "ssim": ssim, "dE76": delta, "error": -psnr}
