"""Whether bfloat16 is faster here, and what a sample takes."""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hdrcli.precision import ceiling
from hdrcli.training.course import Course
from hdrcli.training.recipe import Stage

_WORTH = 1.15  # how much faster bfloat16 must be


def bf16_is_faster(device: torch.device) -> bool:
    """Whether a convolution is faster in bfloat16 than in single precision, measured."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return ceiling(device, "bf16") > _WORTH * ceiling(device, "fp32")


def flops_of_sample(course: Course, stage: Stage, device: torch.device, seed: int) -> float:
    """Operations of convolutions and matrix products, forward and backward, that one sample of a stage takes."""
    sample = course.sample(stage, np.random.default_rng(seed))
    batch = {name: torch.as_tensor(array)[None].to(device) for name, array in sample.items()}
    course.network.eval()
    with FlopCounterMode(display=False) as counter:
        torch.stack([part.float() for part in course.loss(course.network, batch, stage).values()]).sum().backward()  # type: ignore[no-untyped-call]
    course.network.zero_grad()
    return float(counter.get_total_flops())
