"""The convolution of a concatenation is the sum of the convolutions of its parts, so it need never be made."""

from collections.abc import Iterable

from torch import Tensor, nn


class JoinedConv2d(nn.Conv2d):
    """nn.Conv2d of the parts of its input: (N, c1, H, W), (N, c2, H, W) and so on, c1 + c2 + ... = in_channels.

    A part is taken when the one before it is done with, so that parts may be made one at a time.
    """

    def forward(self, parts: Iterable[Tensor]) -> Tensor:
        total: Tensor | None = None
        start = 0
        for part in parts:
            weight = self.weight.narrow(1, start, part.shape[1])
            if total is None:
                total = self._conv_forward(part, weight, self.bias)
            else:
                total += self._conv_forward(part, weight, None)
            start += part.shape[1]
        if total is None or start != self.in_channels:
            raise ValueError(f"the parts have {start} channels together instead of {self.in_channels}")
        return total
