"""Regularisation for films, learned from single pictures: what moves a little is to change no more than it moved.

Eilertsen, Mantiuk, Unger, "Single-frame regularization for temporally stable CNNs", CVPR 2019. With a network f, a
photograph x, its light y and a small random motion T, all compared in the domain of the loss:
stability, f(x + noise) - f(x); coherence, f(T(x)) - T(f(x)); jacobian, (f(T(x)) - f(x)) - (T(y) - y).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Compared = Callable[[Tensor], Tensor]
"""f: from (N, 3, H, W) code values in [0, 1] to the domain in which the loss compares."""

_SHIFT = 2.0  # pixels, and so on: the largest of a motion
_TURN, _SHEAR = 0.0175, 0.0175  # radians
_ZOOM = 0.03
_NOISE = 0.02  # largest standard deviation of the noise of stability, in parts of full scale


class Motion(NamedTuple):
    """Where the pixels of pictures come from, (N, H, W, 2) as for grid_sample, and which lie inside, (N, 1, H, W)."""

    grid: Tensor
    inside: Tensor

    def __call__(self, picture: Tensor) -> Tensor:
        return F.grid_sample(picture, self.grid, padding_mode="border", align_corners=False)


def random_motion(like: Tensor) -> Motion:
    """One motion for each of (N, C, H, W) pictures: a shift, turn, zoom and shear."""
    count, _, height, width = like.shape
    across, down, turn, zoom, shear = (2 * torch.rand(5, count) - 1).unbind(0)
    turn, shear, zoom = _TURN * turn, _SHEAR * shear, 1 + _ZOOM * zoom
    ratio = height / width
    rows = (
        (zoom * torch.cos(turn), ratio * zoom * torch.sin(shear - turn), 2 * _SHIFT / width * across),
        (zoom * torch.sin(turn) / ratio, zoom * torch.cos(shear - turn), 2 * _SHIFT / height * down),
    )
    matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = F.affine_grid(matrix, [count, 1, height, width], align_corners=False).to(like)
    edge = grid.new_tensor([1 - 1 / width, 1 - 1 / height])
    return Motion(grid, (grid.abs() <= edge).all(dim=3)[:, None].to(like))


def stability(network: Compared, codes: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of f(x + noise) - f(x)."""
    noise = _NOISE * torch.rand(len(codes), 1, 1, 1).to(codes) * torch.randn_like(codes)
    return (network((codes + noise).clamp(0, 1)) - found).square().mean()


def coherence(network: Compared, codes: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of f(T(x)) - T(f(x))."""
    motion = random_motion(codes)
    return _inside(network(motion(codes)) - motion(found), motion)


def jacobian(network: Compared, codes: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of (f(T(x)) - f(x)) - (T(y) - y)."""
    motion = random_motion(codes)
    return _inside((network(motion(codes)) - found) - (motion(wanted) - wanted), motion)


PARTS: Mapping[str, Callable[[Compared, Tensor, Tensor, Tensor], Tensor]] = {
    "stability": stability,
    "coherence": coherence,
    "jacobian": jacobian,
}
"""Of the network, x, f(x) and y."""


def _inside(difference: Tensor, motion: Motion) -> Tensor:
    """Mean square where the moved picture shows what was in it before."""
    return (difference.square() * motion.inside).sum() / (3 * motion.inside.sum()).clamp(min=1)
