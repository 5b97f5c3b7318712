"""The precisions that a device can calculate in, and how fast it is in each at most."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter

import torch
import torch.nn.functional as F

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

_SHAPES = ((64, 256), (128, 128))  # channels and side of the convolutions that are timed
_ROUNDS = 12


def reduced(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """While inside, convolutions and matrix products run in `precision`: "fp32", "bf16" or "fp16"."""
    if precision not in DTYPES:
        return nullcontext()
    autocast: AbstractContextManager[None] = torch.autocast(device.type, DTYPES[precision])
    return autocast


def ceiling(device: torch.device, precision: str, now: Callable[[], float] = perf_counter) -> float:
    """10^9 operations a second of the best 3x3 convolution, channels last."""
    best = 0.0
    for channels, side in _SHAPES:
        dtype = DTYPES.get(precision, torch.float32)
        image, weight = (
            torch.rand(*shape, dtype=dtype, device=device).to(memory_format=torch.channels_last)
            for shape in ((1, channels, side, side), (channels, channels, 3, 3))
        )
        with torch.inference_mode():
            seconds = fastest(partial(F.conv2d, image, weight, padding=1), _ROUNDS, device, now)
        best = max(best, 2 * 9 * channels**2 * side**2 / seconds / 1e9)
    return best


def fastest(
    work: Callable[[], object], rounds: int, device: torch.device, now: Callable[[], float] = perf_counter
) -> float:
    """Seconds of the fastest round, by the clock `now`."""
    seconds = float("inf")
    for _ in range(rounds):
        start = now()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = min(seconds, now() - start)
    return seconds
