"""What a picture in tiles takes grows with the picture by what is kept of it, and by nothing else."""

import tracemalloc
from collections.abc import Callable
from threading import Thread

import numpy as np
import pytest
import torch
from standins import known_model

from hdrcli import infer, memory, nets
from hdrcli.color import Float32
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.sensor import Mosaic
from hdrcli.tasks.develop import develop_mosaic
from hdrcli.tasks.expand import expand_image

HALF, WIDTH = 2, 160
TILES = Compute(device="cpu", precision="fp32", tile=64)


class Waves:
    """Stored planes that are made where they are looked at, so that the picture itself takes no memory."""

    def __init__(self, planes: int, height: int) -> None:
        self.shape = (planes, height, WIDTH)

    def __getitem__(self, window: tuple[slice, slice, slice]) -> Float32:
        planes, rows, columns = (np.arange(*part.indices(side)) for part, side in zip(window, self.shape, strict=True))
        waves = 0.5 + 0.5 * np.cos(planes[:, None, None] + 0.1 * rows[:, None] + 0.03 * columns)
        return waves.astype(np.float32)


def growth(peak: Callable[[int], int], small: int, large: int) -> float:
    """Bytes for each pixel that a picture of `large` rows has more than one of `small` rows."""
    return (peak(large) - peak(small)) / ((large - small) * WIDTH)


@pytest.mark.parametrize(("name", "rows"), [("lumen", (636, 1020)), ("lumenraw", (624, 1052)), ("hdrcnn", (832, 1228))])
def test_tensors_of_a_run_in_tiles_grow_by_the_result_alone(
    name: str, rows: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of so many rows, which are cut into windows of one size, one of them at a time."""
    monkeypatch.setattr("hdrcli.lanes._TILES", 1)
    monkeypatch.setattr("hdrcli.nets.lumen._STUDIED", 2000)  # pixels, of a picture of any size
    torch.manual_seed(0)
    network = nets.spec(name).build(**nets.spec(name).tiny)

    def peak(rows: int) -> int:
        return memory.peak(lambda: infer.run(network, Waves(network.planes, rows), TILES, half=True))

    peak(64)  # what is made once
    result = 3 * HALF * network.tiling.scale**2
    assert growth(peak, *rows) <= 1.1 * result


def test_tensors_of_other_threads_are_counted() -> None:
    def work() -> None:
        with memory.counted():
            torch.zeros(1000)

    def both() -> None:
        thread = Thread(target=work)
        thread.start()
        thread.join()
        torch.zeros(10)

    assert memory.peak(both) == 4000
    work()
    assert memory.peak(lambda: torch.zeros(10)) == 40


def arrays(work: Callable[[], object]) -> int:
    """The most bytes that arrays and objects made by `work` take at one time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_expand_makes_no_array_of_the_whole_picture() -> None:
    model, rng = known_model("expand"), np.random.default_rng(0)

    def peak(rows: int) -> int:
        image = Image(rng.integers(0, 256, (rows, WIDTH, 3), np.uint8), Transfer.SRGB)
        return arrays(lambda: expand_image(model, image, gamma=1.2, half=True, compute=TILES))

    peak(64)
    assert growth(peak, 400, 2000) < 0.5


def test_develop_holds_eight_bits_and_a_quarter_of_the_pyramid(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 bytes of the result; level 2 of four exposures with their weights, and what blending takes beside it."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # each thread holds a tile
    monkeypatch.setattr("hdrcli.tasks.develop._SAMPLED", 2000)  # pixels, of a picture of any size
    model, rng = known_model("develop"), np.random.default_rng(0)

    def peak(rows: int) -> int:
        counts = rng.integers(0, 4096, (rows, WIDTH), np.uint16)
        black = np.full((2, 2), 64, np.float32)
        mosaic = Mosaic(counts, black, 4095.0, np.array([2, 1, 1.5]), np.eye(3), (0, 0, rows, WIDTH))
        return arrays(lambda: develop_mosaic(model, mosaic, bits=8, compute=TILES))

    peak(64)
    assert growth(peak, 1000, 3000) < 3 + 4 + 4
