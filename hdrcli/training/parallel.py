"""Several processes that train one network together, as torchrun starts them; alone, everything here is trivial."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun has started, if it has; they leave each other at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def leads() -> bool:
    """Whether this process is the one that validates, writes and talks."""
    return place()[0] == 0


def own_device(device: torch.device) -> torch.device:
    """The device of this process where several on one machine share its GPUs."""
    local = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", int(local)) if device.type == "cuda" and local is not None else device


def largest(*values: float) -> tuple[float, ...]:
    """Each value, the largest of all processes."""
    if place()[1] == 1:
        return values
    shared = torch.tensor(values, dtype=torch.float64)
    if dist.get_backend() == "nccl":
        shared = shared.cuda()
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return tuple(shared.tolist())


def together(module: nn.Module) -> nn.Module:
    """The module, with gradients averaged over all processes."""
    if place()[1] == 1:
        return module
    return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
