"""The training loop: AdamW, cosine schedule over the time or steps given, weight averaging, validation, checkpoints."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]
Scores = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast: the run ends at `steps` or `seconds`, whichever comes first."""

    seconds: float
    steps: int = 10**9
    rate: float = 1e-3
    decay: float = 1e-4
    average: float = 0.999
    check_every: float = 300.0


def train(
    network: nn.Module,
    batches: Iterator[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    score: Callable[[nn.Module], Scores],
    best: str,
    plan: Plan,
    checkpoint: Path,
) -> tuple[dict[str, Tensor], Scores]:
    """Trains in place and returns the averaged weights with the lowest `best` score, and their scores.

    The best weights so far are in `checkpoint` after every check. A loss that is not finite ends the run.
    """
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": plan.decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99))
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    kept: dict[str, Tensor] = {}
    kept_scores: Scores = {}
    started = checked = time.monotonic()
    running, step, progress = 0.0, 0, 0.0
    while progress < 1:
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * warm * (0.5 + 0.5 * math.cos(math.pi * progress))
        network.train()
        value = loss(network, next(batches))
        if not math.isfinite(value.item()):
            logger.warning("step %d: the loss is not finite; stopping with the best weights so far", step)
            break
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        _average(averaged, network, min(plan.average, step / (step + 10)))
        running = value.item() if step == 1 else 0.99 * running + 0.01 * value.item()
        progress = max((time.monotonic() - started) / plan.seconds, step / plan.steps)
        if progress >= 1 or time.monotonic() - checked > plan.check_every:
            checked = time.monotonic()
            scores = score(averaged)
            text = "  ".join(f"{name} {number:.3f}" for name, number in scores.items())
            logger.info("step %d  %.0f s  loss %.4f  %s", step, checked - started, running, text)
            if not kept or scores[best] < kept_scores[best]:
                kept = {name: tensor.clone() for name, tensor in averaged.state_dict().items()}
                kept_scores = dict(scores)
                checkpoint.parent.mkdir(parents=True, exist_ok=True)
                torch.save(kept, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
    return kept, {**kept_scores, "steps": step}


def _average(averaged: nn.Module, network: nn.Module, weight: float) -> None:
    with torch.no_grad():
        for mean, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(new, 1 - weight)
            else:
                mean.copy_(new)
