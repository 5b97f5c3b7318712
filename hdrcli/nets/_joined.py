"""The convolution of a concatenation is the sum of the convolutions of its parts, so it need never be made."""

from collections.abc import Iterable

from torch import Tensor, nn

from hdrcli.nets._fused import convolved


class JoinedConv2d(nn.Conv2d):
    """nn.Conv2d of the parts of its input: (N, c1, H, W), (N, c2, H, W) and so on, c1 + c2 + ... = in_channels.

    A part is taken when the one before it is done with, so that parts may be made one at a time.
    """

    def forward(self, parts: Iterable[Tensor], slope: float | None = None) -> Tensor:
        """slope: of the leaky ReLU that follows, 0 for a ReLU, None for nothing."""
        total: Tensor | None = None
        start = 0
        for part in parts:
            end = start + part.shape[1]
            last = end == self.in_channels
            weights = self.weight[:, start:end], self.bias if start == 0 else None
            total = convolved(self, part, weights, onto=total, slope=slope if last else None)
            start = end
        if total is None or start != self.in_channels:
            raise ValueError(f"the parts have {start} channels together instead of {self.in_channels}")
        return total
