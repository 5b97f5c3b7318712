"""Exact tiles: the parts kept cover a picture once, every window holds what its part depends on, padding comes off."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from standins import CPU
from torch import Tensor
from torch.nn import functional as F

from hdrcli.tiling import Kept, Tiling, crop, kept_of, pad, round_up, run_tiled, spans

TILINGS = st.builds(
    Tiling,
    multiple_of=st.sampled_from([1, 2, 8, 32]),
    halo=st.integers(0, 40),
    minimum=st.integers(1, 70),
    border=st.sampled_from([0, 0, 3, 32]),
)


@given(TILINGS, st.integers(1, 40), st.integers(1, 200))
def test_kept_parts_cover_the_axis_once_and_windows_hold_the_halo(tiling: Tiling, units: int, tile: int) -> None:
    length = max(units * tiling.multiple_of, round_up(tiling.minimum, tiling.multiple_of))
    cut = spans(length, tile, tiling)
    assert [span.kept.start for span in cut] == [0, *(span.kept.stop for span in cut[:-1])]
    assert cut[-1].kept.stop == length
    assert len({span.window.stop - span.window.start for span in cut}) == 1, "all windows have one shape"
    for window, kept in cut:
        assert window.start % tiling.multiple_of == 0, "origins lie on the lattice"
        assert (window.stop - window.start) % tiling.multiple_of == 0
        assert window.stop - window.start >= min(tiling.minimum, length)
        assert 0 <= window.start <= max(kept.start - tiling.halo, 0)
        assert length >= window.stop >= min(kept.stop + tiling.halo, length)


@given(TILINGS, st.integers(1, 90), st.integers(1, 90))
def test_padding_gives_a_size_that_the_network_takes_and_comes_off_again(
    tiling: Tiling, height: int, width: int
) -> None:
    image = torch.rand(1, 2, height, width)
    padded = pad(image, tiling)
    for size in padded.shape[2:]:
        assert size % tiling.multiple_of == 0
        assert size >= tiling.minimum
    assert torch.equal(crop(padded, tiling, height, width), image)


def test_padding_mirrors() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert pad(row, Tiling(multiple_of=8)).flatten().tolist()[:8] == [1, 2, 3, 3, 2, 1, 1, 2]
    assert pad(row, Tiling(border=2))[0, 0, 0].tolist() == [2, 1, 1, 2, 3, 3, 2]


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(("tile", "batch"), [(16, 1), (16, 4), (40, 3), (1000, 1)])
def test_tiled_convolution_equals_the_whole_one(scale: int, tile: int, batch: int) -> None:
    kernel = torch.rand(1, 1, 7, 7)

    def forward(tiles: Tensor) -> Tensor:
        out = F.conv2d(tiles, kernel, padding=3)
        return out.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    def part(tiles: Tensor, kept: Kept) -> Tensor:
        return kept_of(forward(tiles), kept, scale)

    image = torch.rand(1, 1, 88, 120)
    tiled = torch.full((1, 1, 88 * scale, 120 * scale), np.nan)
    tiling = Tiling(multiple_of=8, halo=3, scale=scale)
    for (rows, columns), values in run_tiled(image, part, tiling, tile=tile, batch=batch, lanes=CPU):
        tiled[0, :, rows, columns] = values
    torch.testing.assert_close(tiled, forward(image), rtol=0, atol=1e-5)
