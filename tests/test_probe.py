"""The choice of a precision: never one that changes the picture, tried once, remembered; and the memory of tiles."""

import json
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hdrcli import infer, memory, probe
from hdrcli.cli.options import size_in_bytes
from hdrcli.errors import UsageError
from hdrcli.infer import Compute
from hdrcli.network import Context, Network
from hdrcli.probe import tried  # before the fixtures replace it
from hdrcli.tiling import Tiling

CPU = torch.device("cpu")


class Detail(Network):
    """The picture plus `share` of a blurred copy that is rounded as reduced precision rounds."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.tiling = Tiling(multiple_of=4, halo=4)
        self.share = torch.nn.Parameter(torch.tensor(share))

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        kernel = torch.full((3, 1, 9, 9), 1 / 81)
        return tile + self.share * F.conv2d(tile, kernel, padding=4, groups=3)


def test_the_difference_of_the_results_is_measured_and_decides() -> None:
    harmless, harmful = tried(Detail(1e-3), CPU), tried(Detail(1e3), CPU)
    assert 0 < harmless.stops < probe.MOST_STOPS
    assert harmless.alike >= probe.LEAST_ALIKE
    assert 1e-4 < harmful.stops < 0.02
    assert (harmless.precision == "bf16") == (harmless.gain >= probe.LEAST_GAIN)


def test_a_busy_machine_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds in which a network waits for the processor do not count on a CPU."""
    cpu_seconds = iter(range(1000))
    monkeypatch.setattr(probe, "process_time", lambda: float(next(cpu_seconds)))
    monkeypatch.setattr(probe, "perf_counter", lambda: pytest.fail("the clock was asked"))
    verdict = tried(Detail(1e-3), CPU)
    assert (verdict.gain, verdict.precision) == (1.0, "fp32")


def test_a_network_that_reduced_precision_breaks_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LEAST_GAIN", 0.0)
    assert tried(Detail(1e-3), CPU).precision == "bf16"
    for name, bound in (("MOST_STOPS", 0.0), ("LEAST_ALIKE", 1.1)):
        with monkeypatch.context() as patch:
            patch.setattr(probe, name, bound)
            assert tried(Detail(1e-3), CPU).precision == "fp32"


def test_each_network_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen = []

    def note(network: Network, device: torch.device) -> probe.Verdict:
        seen.append(float(network.get_parameter("share").detach()))
        return probe.Verdict("bf16", 2.0, 0.001, 1.0, 100.0, 60.0)

    monkeypatch.setattr(probe, "tried", note)
    for share in (1.0, 1.0, 2.0, 1.0):
        chosen = infer.describe(Compute(device="cpu"), Detail(share))
        assert chosen.precision == "bf16"
        assert "2.0x as fast" in chosen.reason
    assert seen == [1.0, 2.0]
    cache = probe._cache()
    assert len(json.loads(cache.read_text())) == 2
    cache.write_text("[damaged")
    infer.describe(Compute(device="cpu"), Detail(1.0))
    assert seen == [1.0, 2.0, 1.0]


def test_peak_counts_what_is_there_at_one_time() -> None:
    def chain() -> Tensor:
        x = torch.zeros(1000)
        for _ in range(5):
            x = x * 2
        return x

    assert memory.peak(chain) == 8000
    assert memory.peak(lambda: [torch.zeros(10), torch.zeros(20).add_(1).view(4, 5)]) == 120


KEPT = """
import sys
import threading
import resource, psutil, numpy as np
from hdrcli import heap, memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(100 << 20, 1, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def work():
    with memory.kept():
        print(new_pages(), new_pages(), psutil.Process().memory_info().rss)
    print(psutil.Process().memory_info().rss)

if sys.argv[1] == "beside":
    heap.share()
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
else:
    work()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other ways")
@pytest.mark.parametrize("thread", ["main", "beside"])
def test_freed_memory_is_kept_for_a_while_only(thread: str) -> None:
    """In a process of its own, whose heap other tests have not cut up."""
    said = subprocess.run([sys.executable, "-c", KEPT, thread], capture_output=True, text=True, check=True).stdout
    first, again, held, left = (int(word) for word in said.split())
    assert again < first / 2
    assert left < held - (80 << 20)


def test_less_memory_means_smaller_tiles_and_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile at a time; of two, each gets half."""
    monkeypatch.setattr("hdrcli.lanes._TILES", 1)
    planes = np.random.default_rng(0).random((3, 400, 600), np.float32)
    network = Detail(1.0)
    whole = infer.run(network, planes, Compute())
    pictures, tiles = 4 * 3 * planes[0].size, []
    for pixels in (200_000, 20_000):
        budget = pictures + 500 * pixels  # the bytes of a pixel that the fixture gives
        cut = infer.run(network, planes, Compute(memory=budget))
        np.testing.assert_allclose(cut.pixels, whole.pixels, atol=1e-5)
        tiles.append(cut.tiles)
    assert (whole.tiles, *tiles) == (1, 2, 15)
    monkeypatch.setattr("hdrcli.infer.tiles_at_once", lambda device: 2)
    assert infer.run(network, planes, Compute(memory=pictures + 2 * 500 * 20_000)).tiles == 15


@pytest.mark.parametrize(("text", "size"), [("4G", 4 << 30), ("1.5g", 3 << 29), ("800M", 800 << 20), ("123", 123)])
def test_sizes_of_memory(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "nan", "inf", "4X", "0"])
def test_what_is_no_size_of_memory(text: str) -> None:
    with pytest.raises(UsageError, match="no size of memory"):
        size_in_bytes(text)
