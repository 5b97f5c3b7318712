"""How a batch gains from a second Dask worker: `python tests/bench/scaling.py [--rounds N]`.

16 pictures are expanded by one worker of one thread and by two, in turns; the fastest round of each counts. Prints the
seconds and the efficiency, t1 / (2 t2). Machines that do other things at the same time give too low a number.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from threading import Event

import numpy as np

from hdrcli import cluster, codecs, zoo
from hdrcli.codecs import WriteOptions
from hdrcli.files import Job
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.isolation import Decoders
from hdrcli.tasks.convert import Conversion
from hdrcli.tasks.expand import Expansion

sys.path.append(str(Path(__file__).resolve().parents[1]))
from program import dask_workers

PICTURES = 16
SIZE = (768, 1024)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        jobs = pictures(Path(folder))
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for number, times in seconds.items():
                with dask_workers(number, Path(folder), ONE_THREAD) as address:
                    times.append(timed(jobs, address))
        one, two = min(seconds[1]), min(seconds[2])
    print(f"{PICTURES} pictures of {SIZE[1]} x {SIZE[0]}: one worker {one:.2f} s, two workers {two:.2f} s")
    print(f"efficiency {one / (2 * two):.3f}; all rounds: {seconds}")


def pictures(folder: Path) -> list[Job]:
    """Random pictures with clipped parts, and what they are expanded to."""
    for seed in range(PICTURES):
        pixels = np.random.default_rng(seed).uniform(0, 1.2, (*SIZE, 3)).astype(np.float32).clip(0, 1)
        codecs.write(Image(pixels, Transfer.SRGB), folder / f"{seed:02}.png", "png")
    return [Job(folder / f"{seed:02}.png", folder / f"{seed:02}.exr") for seed in range(PICTURES)]


def timed(jobs: list[Job], address: str) -> float:
    """Seconds for all jobs once each worker has its model."""
    way = Expansion(model=zoo.load("lumen"), compute=Compute(precision="fp32"))
    conversion = Conversion(way=way, decoders=Decoders(), formats=["exr"], options=WriteOptions(), overwrite=True)
    with cluster.dask(address) as found:
        for _ in cluster.run(jobs[:4], conversion, found, stopped=Event()):
            pass
        start = time.perf_counter()
        for outcomes in cluster.run(jobs, conversion, found, stopped=Event()):
            assert outcomes[0].status == "written", outcomes
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
