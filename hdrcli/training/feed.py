"""Batches for training, made beside it by worker processes.

Every sample has a random generator of its own, seeded by its place in the run, so neither the number of workers nor a
pause between two steps changes it.
"""

import signal
from collections.abc import Generator, Iterator
from itertools import count

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from hdrcli.errors import HdrError
from hdrcli.training.course import Batch, Course, Sample
from hdrcli.training.recipe import Stage


class _Samples(Dataset[Sample | HdrError]):
    """Samples by (step, index); one that cannot be read is the error itself, to be raised where it is met."""

    def __init__(self, course: Course, stage: Stage, seed: tuple[int, int]) -> None:
        self._course, self._stage, self._seed = course, stage, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample | HdrError:
        try:
            return self._course.sample(self._stage, np.random.default_rng((*self._seed, *key)))
        except HdrError as error:
            return error


def batches(
    course: Course,
    stage: Stage,
    *,
    seed: tuple[int, int],
    step: int,
    workers: int,
    device: torch.device,
    part: tuple[int, int] = (0, 1),
) -> Generator[Batch, None, None]:
    """Endless batches of a stage from a step on, on `device`.

    seed: of the run, and the number of the stage. workers: processes that make samples, 0 for none.
    part: of every batch, (rank, number of ranks).
    """
    rank, ranks = part
    loader = DataLoader(
        _Samples(course, stage, seed),
        batch_sampler=([(at, index) for index in range(rank, stage.batch, ranks)] for at in count(step)),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_begin_worker,
        pin_memory=device.type == "cuda",
    )
    for batch in _started(loader):
        if isinstance(batch, HdrError):
            raise batch
        yield {name: _placed(tensor, device) for name, tensor in batch.items()}


def _started(loader: DataLoader[Sample | HdrError]) -> Iterator[Batch | HdrError]:
    """The loader's iterator, its workers running; they are forked while OpenCV has no threads, which forks lose."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


def _collate(samples: list[Sample | HdrError]) -> Batch | HdrError:
    errors = [sample for sample in samples if isinstance(sample, HdrError)]
    if errors:
        return errors[0]
    batch: Batch = default_collate(samples)
    return batch


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return tensor.to(device, non_blocking=True, memory_format=layout)


def _begin_worker(number: int) -> None:
    """Leaves Ctrl-C to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
