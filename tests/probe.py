"""Means to find out how far a network sees: weights that make every path count, and edges moved through a picture."""

import zlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

GAIN = 1.2
NOISE = 1e-12  # relative; what rounding may change in double precision


def randomize(network: nn.Module) -> nn.Module:
    """Fills the parameters and the norms' statistics of a network by their names; other buffers keep their values."""
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        z = torch.randn(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        with torch.no_grad():
            if name.endswith("running_var"):
                value.copy_(torch.exp(0.2 * z))
            elif name.endswith("running_mean"):
                value.copy_(0.1 * z)
            elif not isinstance(value, nn.Parameter):
                continue
            elif value.ndim > 1:
                value.copy_(z * GAIN / value[0].numel() ** 0.5)
            elif name.endswith("weight"):
                value.copy_(1 + 0.1 * z)
            else:
                value.copy_(0.05 * z)
    return network.eval()


def reach(
    run: Callable[[Tensor], Tensor], image: Tensor, axis: int, *, margin: int, lattice: int, noise: float = NOISE
) -> int:
    """How far from a changed pixel outputs of `run` change, in input pixels, measured to the near side of an output.

    image: (1, C, H, W). All pixels at one end of `axis`, then at the other, are changed: `margin` to `margin` +
    `lattice` - 1 of them. noise: relative differences up to this are none.
    """
    length = image.shape[axis]
    unchanged = run(image)
    position = torch.arange(length).reshape([-1 if dim == axis else 1 for dim in range(4)])
    furthest = 0
    for changed in range(margin, margin + lattice):
        for at_start in (True, False):
            side = position < changed if at_start else position >= length - changed
            difference = (run(torch.where(side, 1 - image, image)) - unchanged).abs() / (1 + unchanged.abs())
            moved = difference.amax([0, 1, 5 - axis]) > noise
            last = int((moved if at_start else moved.flip(0)).nonzero().max())
            furthest = max(furthest, last * length // len(moved) + 1 - changed)
    return furthest
