"""What this machine can do, whether bfloat16 is faster here, and what a sample takes of it."""

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from hdrcli.training.course import Course
from hdrcli.training.recipe import Stage

_ROUNDS = 8
_WORTH = 1.15  # how much faster bfloat16 must be


def bf16_is_faster(device: torch.device) -> bool:
    """Whether a convolution is faster in bfloat16 than in single precision, measured."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return flops(device, bf16=True) > _WORTH * flops(device, bf16=False)


def flops_of_sample(course: Course, stage: Stage, device: torch.device, seed: int) -> float:
    """Operations of convolutions and matrix products, forward and backward, that one sample of a stage takes."""
    sample = course.sample(stage, np.random.default_rng(seed))
    batch = {name: torch.as_tensor(array)[None].to(device) for name, array in sample.items()}
    course.network.eval()
    with FlopCounterMode(display=False) as counter:
        torch.stack([part.float() for part in course.loss(course.network, batch, stage).values()]).sum().backward()  # type: ignore[no-untyped-call]
    course.network.zero_grad()
    return float(counter.get_total_flops())


def flops(device: torch.device, *, bf16: bool) -> float:
    """Floating-point operations per second of the fastest of a few runs of a 3x3 convolution of 64 channels."""
    layout = torch.channels_last
    x = torch.ones(1, 64, 96, 96, device=device).contiguous(memory_format=layout)
    weight = torch.ones(64, 64, 3, 3, device=device).contiguous(memory_format=layout)
    best = float("inf")
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            F.conv2d(x, weight, padding=1)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - began)
    return 2 * x.numel() * weight[0].numel() / best
