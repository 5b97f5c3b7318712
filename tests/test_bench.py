"""hdr bench: operations are counted right, rows hold together, and the plot has them all."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from hdrcli.cli.main import app
from hdrcli.errors import UsageError
from hdrcli.infer import Compute
from hdrcli.network import Context, Network
from hdrcli.precision import ceiling
from hdrcli.tasks import bench
from hdrcli.tiling import Tiling


class OneConvolution(Network):
    """3x3, from three planes to three."""

    def __init__(self) -> None:
        super().__init__()
        self.tiling = Tiling(halo=1)
        self.weight = torch.nn.Parameter(torch.rand(3, 3, 3, 3))

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        return F.conv2d(tile, self.weight, padding=1)


def test_operations_and_memory_of_one_convolution() -> None:
    row = bench.measured("one", OneConvolution(), 0.0075, Compute(device="cpu", precision="fp32"), ceiling=100.0)
    pixels = 75 * 100
    seconds = pixels / 1e6 / row.speed
    assert row.gflops * seconds * 1e9 == pytest.approx(2 * 9 * 3 * 3 * pixels)
    assert row.share == pytest.approx(row.gflops / 100)
    assert row.tiles == 1
    assert row.bytes >= 4 * 3 * pixels


def test_ceiling_is_above_what_plain_loops_would_reach() -> None:
    assert ceiling(torch.device("cpu"), "fp32") > 0.1


def test_command_writes_rows_and_a_plot(tmp_path: Path) -> None:
    drawn = tmp_path / "a.svg"
    options = ["--megapixels", "0.01", "--precision", "fp32", "--device", "cpu", "--json", "--plot", str(drawn)]
    done = CliRunner().invoke(app, ["bench", "--model", "lumen", "--model", "lumenraw", *options])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["model"] for row in rows] == ["lumen", "lumenraw"]
    assert all(row["speed"] > 0 and 0 < row["share"] < 2 and row["device"] == "cpu" for row in rows)
    bars = ElementTree.parse(drawn).getroot().findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 2


def test_sizes_and_names_that_do_not_exist() -> None:
    with pytest.raises(UsageError):
        list(bench.bench(["lumen"], [0.0], ["fp32"], Compute(device="cpu")))
    assert CliRunner().invoke(app, ["bench", "--model", "nothing"]).exit_code != 0
