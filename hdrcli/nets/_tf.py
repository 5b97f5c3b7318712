"""TensorFlow 1's own versions of common operators, where they differ from torch's."""

import torch
import torch.nn.functional as F
from torch import Tensor


def same_pad(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Padding "SAME" for (N, C, H, W): ceil(H / stride) outputs; what cannot be shared out evenly goes last."""
    amounts: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        amounts += [total // 2, total - total // 2]
    return F.pad(x, amounts, value=value)


def max_pool_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """`tf.nn.max_pool(padding="SAME")` of (N, C, H, W)."""
    return F.max_pool2d(same_pad(x, kernel, stride, float("-inf")), kernel, stride)


def double_bilinear(x: Tensor) -> Tensor:
    """`tf.image.resize_bilinear` to twice the size, without half-pixel centres.

    Along an axis: out[2i] = in[i], out[2i + 1] = (in[i] + in[i + 1]) / 2, the last value repeated.
    """
    doubled = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.avg_pool2d(F.pad(doubled, (0, 1, 0, 1), mode="replicate"), 2, stride=1)


def sobel_edges(x: Tensor) -> Tensor:
    """`tf.image.sobel_edges` of (N, C, H, W) as (N, 2C, H, W), unnormalised: dy, dx of the first channel, and so on."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    across, down = _smooth(x, 3), _smooth(x, 2)
    dy = across[:, :, 2:] - across[:, :, :-2]
    dx = down[:, :, :, 2:] - down[:, :, :, :-2]
    return torch.stack((dy, dx), 2).flatten(1, 2)


def _smooth(x: Tensor, axis: int) -> Tensor:
    """The weights 1, 2, 1 along `axis`, which becomes two shorter."""
    size = x.shape[axis] - 2
    return x.narrow(axis, 0, size) + 2 * x.narrow(axis, 1, size) + x.narrow(axis, 2, size)
