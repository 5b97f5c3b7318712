"""What runs beside each other: tiles on the cores of a processor, and copies to and from a GPU beside its work.

CUDA has streams for the copies. On all other devices the same calls go to `torch.cpu`, whose streams do nothing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hdrcli import memory

Work = Callable[[Tensor], Tensor]
Begun = Callable[[], Tensor]
"""Waits for work that was begun, and gives what it came to, in the computer's memory."""

_TILES = 2  # at a time on a processor; more of them would each have less memory, and so larger halos


class Lanes(Protocol):
    """Where work is begun: `ahead` pieces of it are best begun before one is waited for."""

    ahead: int

    def begin(self, work: Work, numbers: Tensor) -> Begun: ...


def tiles_at_once(device: torch.device) -> int:
    """How many tiles share a device, each with its part of the threads.

    Two tiles on a core each do not wait for each other after each step, as two cores in one tile do: an eighth faster.
    """
    return _TILES if device.type == "cpu" and torch.get_num_threads() % _TILES == 0 else 1


@contextmanager
def one_thread() -> Iterator[None]:
    """While inside, this thread calculates alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def lanes(device: torch.device) -> Iterator[Lanes]:
    """Lanes to a device, or on the cores of a processor; all work is done, or given up, in the end."""
    count, threads = tiles_at_once(device), torch.get_num_threads()
    if count == 1:
        yield Streams(device)
        return
    pool = ThreadPoolExecutor(count, "tiles", partial(torch.set_num_threads, threads // count))
    try:
        yield Cores(pool, count)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


class Cores:
    """A pool of threads that work on tensors in the computer's memory."""

    def __init__(self, pool: ThreadPoolExecutor, ahead: int) -> None:
        self._pool, self.ahead = pool, ahead

    def begin(self, work: Work, numbers: Tensor) -> Begun:
        return self._pool.submit(self._run, work, numbers).result

    @staticmethod
    def _run(work: Work, numbers: Tensor) -> Tensor:
        with memory.counted():
            return work(numbers)


class Streams:
    """One stream to a device and one from it, beside the current one, which computes."""

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        self._streams = torch.cuda if self._pinned else torch.cpu
        self._up, self._down = self._streams.Stream(device), self._streams.Stream(device)

    def begin(self, work: Work, numbers: Tensor) -> Begun:
        with self._streams.stream(self._up):
            moved = (numbers.pin_memory() if self._pinned else numbers).to(self._device, non_blocking=True)
        self._streams.current_stream(self._device).wait_stream(self._up)
        computed = work(moved)
        self._down.wait_stream(self._streams.current_stream(self._device))
        arrived = self._streams.Event()
        with self._streams.stream(self._down):
            arriving = computed.to("cpu", non_blocking=True)  # into pinned memory
            arrived.record(self._down)
        return _Fetched(arriving, arrived, (moved, computed)).wait


class _Fetched(NamedTuple):
    """A tensor on its way back from a device, and those that must stay until it is there."""

    arriving: Tensor
    arrived: torch.cuda.Event | torch.cpu.Event
    kept: tuple[Tensor, Tensor]

    def wait(self) -> Tensor:
        self.arrived.synchronize()
        return self.arriving
