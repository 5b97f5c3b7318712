"""lumenraw: its parts are exact where they claim to be, and untrained it is a plain demosaic."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from standins import known_model

import hdrcli
from hdrcli import camera
from hdrcli.errors import UsageError
from hdrcli.nets import lumenraw
from hdrcli.nets.lumenraw import LumenRaw
from hdrcli.tasks.develop import check_settings


def _packed(mosaic: torch.Tensor) -> torch.Tensor:
    return torch.stack([mosaic[1::2, 1::2], mosaic[0::2, 1::2], mosaic[0::2, 0::2], mosaic[1::2, 0::2]])[None]


def test_the_demosaic_of_a_ramp_is_the_ramp() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    ramp = 0.01 * y + 0.02 * x
    found = F.pixel_shuffle(lumenraw.demosaic(_packed(ramp)), 2)
    assert (found[0, :, 1:-1, 1:-1] - ramp[1:-1, 1:-1]).abs().max() < 1e-6


def test_the_demosaic_keeps_every_sample_at_its_place() -> None:
    mosaic = torch.rand(16, 20)
    rgb = F.pixel_shuffle(lumenraw.demosaic(_packed(mosaic)), 2)[0]
    for channel, row, column in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        assert torch.equal(rgb[channel, row::2, column::2], mosaic[row::2, column::2])


def test_the_code_has_an_inverse() -> None:
    light = torch.tensor([-0.05, 0.0, 1e-4, 0.18, 1.0, 50.0])
    assert torch.allclose(lumenraw.decode(lumenraw.encode(light)), light, rtol=1e-4, atol=1e-6)


def test_an_untrained_network_is_a_plain_demosaic() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    planes = _packed(0.4 + 0.002 * y + 0.001 * x)
    with torch.inference_mode():
        output = LumenRaw(**lumenraw.SPEC.tiny).eval().whole(planes)
    error = (output - F.pixel_shuffle(lumenraw.demosaic(planes), 2))[..., 8:-8, 8:-8].abs().max()
    assert error < 1e-5, f"off by {error:.2g}"


def test_there_is_no_grid_in_flat_surfaces() -> None:
    torch.manual_seed(0)
    network = LumenRaw(**lumenraw.SPEC.tiny).eval()
    torch.nn.init.normal_(network.head.bias, std=0.01)
    uneven = torch.tensor([0.05, 0.70, 0.9, 0.686]).view(1, 4, 1, 1).expand(1, 4, 24, 32)
    with torch.inference_mode():
        sites = F.pixel_unshuffle(network.whole(uneven)[:, :, 8:-8, 8:-8], 2)[0].view(3, 4, -1)
    grid = (sites - sites.mean(dim=1, keepdim=True)).abs().max()
    assert grid < 1e-4, f"sites of a flat surface differ by {grid:.2g}"


def test_a_strong_grid_is_detail() -> None:
    stripes = torch.tensor([0.2, 0.8, 0.2, 0.8]).view(1, 4, 1, 1).expand(1, 4, 16, 16)
    change = (lumenraw.without_grid(stripes) - stripes).abs().max()
    assert change <= 0.1001, f"changed by {change:.3f}"


def test_slopes_are_no_grid() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    slope = F.pixel_unshuffle((0.2 + 0.004 * y + 0.003 * x)[None, None], 2)
    change = (lumenraw.without_grid(slope) - slope)[..., 4:-4, 4:-4].abs().max()
    assert change < 1e-6, f"a slope changes by {change:.2g}"


@pytest.mark.parametrize(("a", "b"), [(2e-3, 1e-6), (1e-3, 1e-4), (0.0, 4e-4)])
def test_the_noise_model_is_found_again(a: float, b: float) -> None:
    generator = torch.Generator().manual_seed(0)
    light = torch.linspace(0, 1, 384).expand(1, 4, 288, 384)
    noisy = light + torch.sqrt(a * light + b) * torch.randn(light.shape, generator=generator)
    fits = lumenraw.noise_model(noisy)[0]
    for level in (0.2, 0.5, 0.9):
        ratio = (fits[:, 0] * level + fits[:, 1]) / (a * level + b)
        assert ((ratio > 0.5) & (ratio < 1.5)).all(), f"variance at {level} is off by {ratio.tolist()}"


@pytest.mark.parametrize("value", [0.0, -0.01, 0.3, 0.5, 1.0, 100.0])
def test_flat_and_tiny_pictures_have_a_noise_model(value: float) -> None:
    fits = lumenraw.noise_model(torch.full((1, 4, 16, 16), value))
    assert fits.shape == (1, 3, 2) and fits.isfinite().all() and (fits > 0).all()


def test_denoise_is_a_strength() -> None:
    rng = np.random.default_rng(1)
    sensor = camera.SensorModel(np.ones(3), np.eye(3), 0.0, 10, 1e-3, 2e-3)
    wall = np.linspace(0.1, 0.3, 96, dtype=np.float32)[:, None] * np.ones((64, 96, 3), np.float32)
    mosaic = camera.record(wall, sensor, 0.001, rng)
    left = [
        float(np.std(np.diff(hdrcli.develop(mosaic, denoise=strength).pixels, n=2, axis=1)))
        for strength in (0.0, 1.0, 3.0)
    ]
    assert left[0] > 1.5 * left[1] > left[2], left


def test_what_measures_no_noise_takes_no_denoise() -> None:
    with pytest.raises(UsageError, match="does not measure noise"):
        check_settings(known_model("develop"), 0.0, 0.5, None)
