"""Copies to a device and back beside its work: while one batch of tiles is computed, the next and the last one travel.

CUDA has streams for that. On all other devices the same calls go to `torch.cpu`, whose streams do nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Fetched(NamedTuple):
    """A tensor on its way back from a device, which keeps what it is copied from."""

    arriving: Tensor
    arrived: torch.cuda.Event | torch.cpu.Event
    source: Tensor

    def wait(self) -> Tensor:
        """The tensor in the computer's memory, once it is there."""
        self.arrived.synchronize()
        return self.arriving


class Lanes:
    """One stream to a device and one from it, beside the current one, which computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        self._streams = torch.cuda if self._pinned else torch.cpu
        self._up, self._down = self._streams.Stream(device), self._streams.Stream(device)

    def up(self, numbers: Tensor) -> Tensor:
        """`numbers` on the device, for the current stream; to be kept until what is computed of it is there."""
        with self._streams.stream(self._up):
            moved = (numbers.pin_memory() if self._pinned else numbers).to(self._device, non_blocking=True)
        self._streams.current_stream(self._device).wait_stream(self._up)
        return moved

    def down(self, computed: Tensor) -> Fetched:
        """Begins to copy what the current stream computes."""
        self._down.wait_stream(self._streams.current_stream(self._device))
        arrived = self._streams.Event()
        with self._streams.stream(self._down):
            arriving = computed.to("cpu", non_blocking=True)  # into pinned memory
            arrived.record(self._down)
        return Fetched(arriving, arrived, computed)
