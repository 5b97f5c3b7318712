"""What the command takes beside its network: `python tests/bench/endtoend.py expand|develop FILE [--copies 20]`.

Runs, one after the other in one go: the command on a tiny picture, which is its start-up; the network alone on the
picture in FILE, in this process; the command on FILE; the command on a folder of copies of it. Prints seconds by the
clock and of the processors, and the ratios to the network: of one file, start-up taken off, and of each of the copies.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from hdrcli import infer, memory, zoo
from hdrcli.cards import default_model
from hdrcli.codecs import dng
from hdrcli.image import Planes
from hdrcli.infer import Compute
from hdrcli.tasks.develop import Development, fed
from hdrcli.tasks.expand import Expansion, Feed

PROGRAM = "from hdrcli.cli.main import main; main()"


class Seconds(NamedTuple):
    """By the clock, and of all processors."""

    wall: float
    cpu: float

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(*(a - b for a, b in zip(self, other, strict=True)))

    def over(self, other: "Seconds") -> str:
        return " ".join(f"{a / b:.2f}x {unit}" for a, b, unit in zip(self, other, self._fields, strict=True))

    def __str__(self) -> str:
        return f"{self.wall:.2f} s wall, {self.cpu:.2f} s cpu"


def taken(work: Callable[[], object]) -> Seconds:
    """What `work` takes, in this process and those that it starts."""
    wall, cpu = time.perf_counter(), _cpu()
    work()
    return Seconds(time.perf_counter() - wall, _cpu() - cpu)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def command(task: str, arguments: Sequence[str]) -> None:
    """Runs `hdr`, which has to end well."""
    subprocess.run([sys.executable, "-c", PROGRAM, task, *arguments, "--overwrite", "-q"], check=True)


def planes(task: str, path: Path) -> Planes:
    """What the network sees of a picture."""
    if task == "expand":
        return Feed(Expansion(model=zoo.load(default_model("expand"))).reader(path), 1.0, 1.0)
    return fed(Development(model=zoo.load(default_model("develop"))).reader(path), "canonical", 0.0)


def tiny(task: str, folder: Path) -> Path:
    """A picture of next to no size."""
    place = folder / f"tiny{'.jpg' if task == 'expand' else '.dng'}"
    counts = np.random.default_rng(0).integers(300, 4000, (64, 64), np.uint16)
    if task == "expand":
        cv2.imwrite(str(place), (counts // 16).astype(np.uint8))
    else:
        dng.write(place, counts, black=256, white=4095, as_shot_neutral=(1, 1, 1), color_matrix=np.eye(3), bits=12)
    return place


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["expand", "develop"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--copies", type=int, default=20)
    options = parser.parse_args()
    network, picture = zoo.load(default_model(options.task)).network, planes(options.task, options.file)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures, out = folder / "in", str(folder / "out")
        pictures.mkdir()
        for index in range(options.copies):
            shutil.copy(options.file, pictures / f"{index:03}{options.file.suffix}")
        small = str(tiny(options.task, folder))
        command(options.task, [small, "-o", out])  # the precision is found, files are in the system's cache
        startup = taken(lambda: command(options.task, [small, "-o", out]))
        with memory.kept():  # as the command keeps it through a batch
            infer.run(network, picture, Compute(), half=True)
            alone = taken(lambda: infer.run(network, picture, Compute(), half=True))
        one = taken(lambda: command(options.task, [str(options.file), "-o", out]))
        print(f"start-up {startup}\nnetwork  {alone}\none file {one}: {(one - startup).over(alone)} of the network")
        if options.copies:
            many = taken(lambda: command(options.task, [str(pictures), "-o", out])) - startup
            each = Seconds(many.wall / options.copies, many.cpu / options.copies)
            print(f"each of {options.copies} {each}: {each.over(alone)} of the network")


if __name__ == "__main__":
    main()
