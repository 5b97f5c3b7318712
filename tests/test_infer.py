"""Running a network on a picture: three stages, tiles, padding, memory that runs out, numbers that are not finite."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed
from torch.nn import functional as F

from hdrcli import infer, nets
from hdrcli.errors import HdrError, OutOfMemoryError, UsageError
from hdrcli.infer import Compute
from hdrcli.network import Context, Network
from hdrcli.probe import Verdict
from hdrcli.tiling import Tiling, Windows


class Blur(Network):
    """A 5x5 mean divided by the mean of the whole picture; then scaled by the square of that."""

    def __init__(self, scale: int = 1, limit: int = 10**9) -> None:
        super().__init__()
        self.tiling = Tiling(multiple_of=4, halo=2, scale=scale, tile=32)
        self.limit = limit
        self.sizes: list[tuple[int, int]] = []

    def prepare(self, image: Windows) -> Context:
        return {"mean": image[:, :, : image.shape[2], : image.shape[3]].mean(dim=(1, 2, 3), keepdim=True)}

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        self.sizes.append((tile.shape[0], tile.shape[2]))
        if tile.shape[0] * tile.shape[2] * tile.shape[3] > self.limit:
            raise torch.OutOfMemoryError
        mean = F.avg_pool2d(tile[:, :3], 5, stride=1, padding=2) / context["mean"]
        return mean.repeat_interleave(self.tiling.scale, 2).repeat_interleave(self.tiling.scale, 3)

    def finish(self, output: Tensor, context: Context) -> Tensor:
        return output * context["mean"] ** 2


def picture(height: int = 70, width: int = 101, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((channels, height, width), np.float32)


@pytest.mark.parametrize("scale", [1, 2])
def test_tiles_give_what_the_whole_picture_gives(scale: int) -> None:
    network = Blur(scale)
    tiled = infer.run(network, picture(), Compute(tile=32, batch=2))
    whole = infer.run(network, picture(), Compute(tile=128))
    assert (tiled.tiles, whole.tiles) == (12, 1)
    assert whole.pixels.shape == (70 * scale, 101 * scale, 3)
    assert whole.pixels.dtype == np.float32
    np.testing.assert_allclose(tiled.pixels, whole.pixels, atol=1e-6)


def test_whole_picture_goes_through_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Blur()
    monkeypatch.setattr(network, "whole", lambda image, reduced: torch.full((1, 3, *image.shape[2:]), 0.5))
    assert np.all(infer.run(network, picture(), Compute(tile=128)).pixels == 0.5)


def test_memory_that_runs_out_halves_batches_then_tiles_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile at a time, so that their order is known."""
    monkeypatch.setattr("hdrcli.lanes._TILES", 1)
    expected = infer.run(Blur(), picture(256, 300), Compute(tile=256)).pixels
    network = Blur(limit=100 * 100)
    result = infer.run(network, picture(256, 300), Compute(tile=128, batch=4))
    np.testing.assert_allclose(result.pixels, expected, atol=1e-6)
    assert network.sizes[:4] == [(4, 132), (2, 132), (1, 132), (1, 72)]
    assert result.tiles == 20


def test_tiles_that_run_beside_each_other_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by half of the threads; what was set for the process is as it was afterwards, also after a failure."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = [infer.run(Blur(), picture(256, 300), Compute(tile=32)).pixels]
        with pytest.raises(OutOfMemoryError):
            infer.run(Blur(limit=0), picture(256, 300), Compute(tile=128))
        assert torch.get_num_threads() == 4
        monkeypatch.setattr("hdrcli.lanes._TILES", 1)
        found.append(infer.run(Blur(), picture(256, 300), Compute(tile=32)).pixels)
        np.testing.assert_array_equal(*found)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("memory", "sizes"), [(10**9, [(16, 32)]), (10**6, [(6, 32), (6, 32), (4, 32)])])
def test_a_gpu_is_filled_with_tiles(monkeypatch: pytest.MonkeyPatch, memory: int, sizes: list[tuple[int, int]]) -> None:
    """As many of the network's own tiles as its measured bytes allow, on the CPU with the code of a GPU."""
    expected = infer.run(Blur(), picture(100, 100), Compute(tile=128)).pixels
    monkeypatch.setattr(infer, "_is_filled", lambda device: True)
    monkeypatch.setattr(
        infer, "best", lambda network, device: Verdict("fp32", 1.0, 0.0, 1.0, bytes=130.0, reduced_bytes=0.0)
    )
    network = Blur()
    result = infer.run(network, picture(100, 100), Compute(memory=memory))
    np.testing.assert_allclose(result.pixels, expected, atol=1e-6)
    assert network.sizes == sizes


def test_all_cuda_devices_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert infer.devices(Compute()) == ["cuda:0", "cuda:1", "cuda:2"]
    assert infer.devices(Compute(device="cuda:1")) == ["cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert infer.devices(Compute()) == ["auto"]


def test_a_network_is_compiled_once_for_all_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call: compiled.append(call) or call)
    network = Blur()
    results = [infer.run(network, picture(), Compute(tile=32, compiled=True)).pixels for _ in range(2)]
    assert len(compiled) == 1
    np.testing.assert_array_equal(results[0], infer.run(Blur(), picture(), Compute(tile=32)).pixels)
    np.testing.assert_array_equal(*results)


def test_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(call: object) -> object:
        def fail(*_: object) -> None:
            raise BackendCompilerFailed(lambda: None, RuntimeError("no compiler"), None)

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(HdrError, match="cannot be compiled here") as caught:
        infer.run(Blur(), picture(), Compute(compiled=True))
    assert "--compile" in caught.value.hint


def test_memory_that_is_never_enough_is_an_error_for_people() -> None:
    with pytest.raises(OutOfMemoryError, match="does not fit"):
        infer.run(Blur(limit=0), picture(), Compute())


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(HdrError, match="not finite"):
        infer.run(Blur(), np.full((3, 20, 20), np.nan, np.float32), Compute())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_small_pictures_and_the_report(precision: str) -> None:
    result = infer.run(Blur(), picture(1, 1), Compute(precision=precision))
    assert result.pixels.shape == (1, 1, 3)
    assert (result.device, result.precision) == ("cpu", precision) or torch.cuda.is_available()


def test_device_is_chosen_with_a_reason() -> None:
    chosen = infer.describe(Compute(), Blur())
    assert chosen.precision == "fp32"
    assert chosen.reason
    assert infer.describe(Compute(device="cpu")).device == torch.device("cpu")


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "mps:5", "meta", ""])
def test_device_that_is_not_there_is_wrong_usage(device: str) -> None:
    with pytest.raises(UsageError):
        infer.describe(Compute(device=device))


def test_precision_that_is_not_there_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="int8"):
        infer.describe(Compute(precision="int8"))


@pytest.mark.parametrize("name", nets.names())
def test_every_network_runs_on_an_odd_picture_whole_and_in_tiles(name: str) -> None:
    spec = nets.spec(name)
    torch.manual_seed(0)
    network = spec.build(**spec.tiny)
    planes = picture(70, 93, channels=4 if spec.task == "develop" else 3)
    whole = infer.run(network, planes, Compute(tile=4096))
    tiled = infer.run(network, planes, Compute(tile=64))
    assert whole.pixels.shape == (70 * network.tiling.scale, 93 * network.tiling.scale, 3)
    difference = np.abs(whole.pixels - tiled.pixels)
    assert difference.max() <= 1e-4, f"{name}: tiled differs from whole by {difference.max():.2g}"
