"""train prepare: RAW files to the pairs that networks which develop learn from."""

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import cv2
import numpy as np
from numpy.typing import NDArray

from hdrcli import codecs, files, raw, rawtypes, tonemap
from hdrcli.batch import Check, Outcome, run
from hdrcli.errors import UsageError
from hdrcli.files import Job
from hdrcli.image import Image, Transfer
from hdrcli.isolation import Decoders
from hdrcli.sensor import Mosaic, anchor, camera_linear, parts_of_white, unpack

BLACK, WHITE = 64, 1023  # of the mosaics
HELD_OUT = 10  # the first of so many files goes to test/
RAWS, PICTURES = "raw", "groundtruth"

Codes = NDArray[np.uint16]


def plan(source: Path, folder: Path) -> list[Job]:
    """The RAW files in `source` and the pictures to be made of them in `folder`; UsageError where that cannot be."""
    if not source.is_dir():
        raise UsageError(f"{source} is no folder", hint="name a folder of RAW files")
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in rawtypes.SUFFIXES)
    if len(found) < 2:
        raise UsageError(
            f"{source} holds {len(found)} RAW files", hint="one to learn from and one to test on are needed"
        )
    stems = Counter(path.stem for path in found)
    if twice := [path.name for path in found if stems[path.stem] > 1]:
        raise UsageError(f"{' and '.join(twice[:2])} have one name", hint="rename one, for pairs go by name")
    return [
        Job(path, folder / ("train" if number % HELD_OUT else "test") / PICTURES / f"{path.stem}.png")
        for number, path in enumerate(found)
    ]


def prepare(
    jobs: Sequence[Job], look: str, decoders: Decoders, *, workers: int, stopped: Event
) -> Generator[Outcome, None, None]:
    """Makes the pairs, and yields what became of each in order; those that are there are skipped.

    look: one of `tonemap.OPERATORS`. Beside the `groundtruth` of a job lies `raw` with the mosaic.
    """
    files.sweep({path.parent for job in jobs for path in (job.target, _mosaic_of(job))})
    with closing(run(jobs, [_Preparation(look, decoders)], workers=workers, stopped=stopped)) as made:
        for outcomes in made:
            yield from outcomes


def mosaic_and_picture(source: Mosaic, look: str) -> tuple[Codes, Image]:
    """A (H, W) mosaic, RGGB, 10 bits with black at 64 and white at 1023, and the (H, W, 3) picture of it, not turned.

    The picture is demosaiced after the white balance, edge-aware, exposed to mid-grey, and gets its look.
    """
    top, left, height, width = (2 * (side // 2) for side in source.crop)
    cut = np.s_[top : top + height, left : left + width]
    levels = unpack(parts_of_white(source))[cut].clip(0, 1)
    codes = np.rint(BLACK + (WHITE - BLACK) * levels).astype(np.uint16)

    balanced = levels.copy()
    least = np.float32(source.balance.min())
    for channel, places in ((0, ((0, 0),)), (1, ((0, 1), (1, 0))), (2, ((1, 1),))):
        for row, column in places:
            balanced[row::2, column::2] *= np.float32(source.balance[channel]) / least
    stored = np.rint(65535 * balanced.clip(0, 1)).astype(np.uint16)
    camera_rgb = cv2.demosaicing(stored, cv2.COLOR_BayerRGGB2RGB_EA).astype(np.float32) * (least / np.float32(65535))
    gain = anchor(camera_linear(source))
    light = np.maximum(camera_rgb @ (gain * source.matrix.T).astype(np.float32), 0)
    return codes, Image(tonemap.OPERATORS[look](light), Transfer.SRGB)


@dataclass(frozen=True)
class _Preparation:
    """The stages of a batch."""

    look: str
    decoders: Decoders

    def skipped(self, job: Job) -> list[Outcome]:
        there = all(files.is_written(path) for path in (job.target, _mosaic_of(job)))
        return [Outcome(job=job, status="skipped")] if there else []

    def decode(self, job: Job) -> Mosaic:
        return self.decoders.read(partial(raw.read, sensor="canonical"), job.source)

    def process(self, job: Job, decoded: Mosaic, check: Check) -> tuple[Codes, Image]:
        return mosaic_and_picture(decoded, self.look)

    def encode(self, job: Job, made: tuple[Codes, Image]) -> list[Outcome]:
        """Both files take their names once both are whole."""
        codes, picture = made
        with ExitStack() as stack:
            parts = [stack.enter_context(files.atomic_write(path)) for path in (job.target, _mosaic_of(job))]
            codecs.write(picture, parts[0], "png")
            parts[1].write_bytes(cv2.imencode(".png", codes)[1].tobytes())
        height, width = codes.shape
        return [Outcome(job=job, status="written", width=width, height=height)]


def _mosaic_of(job: Job) -> Path:
    return job.target.parent.with_name(RAWS) / job.target.name
