"""Convolutions that go on with what follows them, so that nobody goes over the picture again; equal but for rounding.

In bf16 on a CPU by oneDNN's fused convolutions, which torch.compile uses as well; otherwise by torch's own operators.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets._quick import cast

_ONEDNN: Any = torch.ops.mkldnn
_LARGE = 96  # sides of a picture, in widths of a reflected border, from which the border is made apart


class NormedConv2d(nn.Sequential):
    """A convolution and the batch normalisation after it; in evaluation one convolution with the weights of both."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__(conv, norm)

    def forward(self, x: Tensor, *, onto: Tensor | None = None, slope: float | None = None) -> Tensor:
        """onto, slope: as those of `convolved`."""
        conv, norm = self
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.training or norm.running_mean is None or norm.running_var is None:
            return activated(norm(conv(x)), onto, slope)
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
        weights = conv.weight * scale[:, None, None, None], norm.bias - mean * scale
        return convolved(conv, x, weights, onto=onto, slope=slope)


class ActiveConvs(nn.Sequential):
    """Convolutions, each followed by a ReLU or a leaky ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self)
        for conv, activation in zip(layers[::2], layers[1::2], strict=True):
            x = active(conv, x, slope=getattr(activation, "negative_slope", 0.0))
        return x


def active(layer: nn.Module, x: Tensor, *, slope: float = 0.0, onto: Tensor | None = None) -> Tensor:
    """leaky_relu(layer(x) + onto), `onto` left out if None; it may be overwritten.

    layer: a Conv2d or a NormedConv2d. slope: of the leaky ReLU below zero; without one it is a ReLU.
    """
    if isinstance(layer, NormedConv2d):
        normed: Tensor = layer(x, onto=onto, slope=slope)
        return normed
    assert isinstance(layer, nn.Conv2d)
    return convolved(layer, x, onto=onto, slope=slope)


def convolved(
    conv: nn.Conv2d,
    x: Tensor,
    weights: tuple[Tensor, Tensor | None] | None = None,
    *,
    onto: Tensor | None = None,
    slope: float | None = None,
) -> Tensor:
    """`active` of a convolution; without a slope nothing follows the sum. weights: weight and bias in place of its own.

    In bf16 on a CPU the sum and the ReLU are part of the convolution, so that nobody goes over the picture again.
    """
    weight, bias = weights or (conv.weight, conv.bias)
    if not (_fuses(x) and (onto is None or _takes_more(onto))):
        return activated(conv._conv_forward(x, weight, bias), onto, slope)
    fused = partial(_fused, conv, cast(weight), None if bias is None else cast(bias), slope)
    padding = conv.padding
    assert not isinstance(padding, str)
    if conv.padding_mode == "zeros":
        return fused(cast(x), padding, onto)
    if conv.padding_mode == "reflect" and min(x.shape[2:]) >= _LARGE * max(padding) > 0:
        return _reflected(fused, cast(x), padding, onto)
    return fused(cast(F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)), (0, 0), onto)


def _fused(
    conv: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    slope: float | None,
    x: Tensor,
    padding: Sequence[int],
    onto: Tensor | None,
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)  # as `onto` is
    geometry = padding, conv.stride, conv.dilation, conv.groups
    if onto is None:
        after = ("none", [], "") if slope is None else ("leaky_relu", [slope], "") if slope else ("relu", [], "")
        first: Tensor = _ONEDNN._convolution_pointwise(x, weight, bias, *geometry, *after)
        return first
    relu = "relu" if slope == 0 else None  # the only one that it knows after a sum
    added: Tensor = _ONEDNN._convolution_pointwise_.binary(onto, x, weight, bias, *geometry, "add", 1.0, relu, [], "")
    return F.leaky_relu_(added, slope) if slope else added


def _reflected(
    fused: Callable[[Tensor, Sequence[int], Tensor | None], Tensor],
    x: Tensor,
    padding: Sequence[int],
    onto: Tensor | None,
) -> Tensor:
    """With reflected borders: first with zeros around the picture, which takes no copy of it, then its edges again."""
    rows, columns = padding
    places = [
        (np.s_[:, :, :rows], np.s_[:, :, : 2 * rows], (columns, columns, rows, 0)),
        (np.s_[:, :, -rows:], np.s_[:, :, -2 * rows :], (columns, columns, 0, rows)),
        (np.s_[..., :columns], np.s_[..., : 2 * columns], (columns, 0, rows, rows)),
        (np.s_[..., -columns:], np.s_[..., -2 * columns :], (0, columns, rows, rows)),
    ]
    edges = []
    for edge, near, outside in places:
        below = None if onto is None else onto[edge].clone(memory_format=torch.channels_last)
        edges.append(fused(cast(F.pad(x[near], outside, mode="reflect")), (0, 0), below))
    whole = fused(x, padding, onto)
    for (edge, _, _), again in zip(places, edges, strict=True):
        whole[edge] = again
    return whole


def activated(x: Tensor, onto: Tensor | None, slope: float | None) -> Tensor:
    """leaky_relu(x + onto) by torch's own operators; x may be overwritten."""
    x = x if onto is None else x.add_(onto)
    return x if slope is None else F.leaky_relu_(x, slope) if slope else F.relu_(x)


def _fuses(x: Tensor) -> bool:
    """Whether torch's fused convolutions can stand in for a convolution of x."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return in_bf16 and _bf16_convolutions()


def _takes_more(onto: Tensor) -> bool:
    """Whether a fused convolution can add to it in place."""
    return onto.dtype == torch.bfloat16 and onto.is_contiguous(memory_format=torch.channels_last)


@cache
def _bf16_convolutions() -> bool:
    return torch.backends.mkldnn.is_available() and bool(_ONEDNN._is_mkldnn_bf16_supported())  # type: ignore[no-untyped-call]
