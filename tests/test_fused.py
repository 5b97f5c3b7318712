"""Convolutions that go on with what follows them are what torch makes of the same layers one after the other."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets._fused import ActiveConvs, NormedConv2d, active, convolved
from hdrcli.nets._quick import by_bands, mean_of

CHANNELS = 8
LAYOUTS = {"planes first": torch.contiguous_format, "channels last": torch.channels_last}


def _picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(1, CHANNELS, height, width, generator=torch.Generator().manual_seed(seed))


def _layer(size: int, mode: str = "zeros") -> nn.Conv2d:
    torch.manual_seed(size)
    return nn.Conv2d(CHANNELS, CHANNELS, size, padding=size // 2, padding_mode=mode)


def _close(found: Tensor, expected: Tensor) -> None:
    """Within what bf16 rounds in a few sums, everywhere."""
    error = (found.float() - expected).abs() / expected.abs().max()
    worst = [int(place) for place in torch.unravel_index(error.argmax(), error.shape)]
    print(f"off by {float(error.max()):.1e} of the largest at {worst} of {list(error.shape)}")
    assert found.shape == expected.shape
    assert error.max() <= 0.02


@pytest.mark.parametrize("added", [False, True], ids=["alone", "added"])
@pytest.mark.parametrize("slope", [None, 0.0, 0.2])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("side", [12, 300])
@pytest.mark.parametrize(
    ("size", "mode"), [(1, "zeros"), (3, "zeros"), (3, "reflect"), (5, "reflect"), (3, "replicate")]
)
@torch.inference_mode()
def test_fused_convolutions(size: int, mode: str, side: int, layout: str, slope: float | None, added: bool) -> None:
    """With borders of every kind around small and large pictures."""
    layer, x, other = _layer(size, mode), _picture(side, side + 5), _picture(side, side + 5, seed=1)
    plain = layer(x) + other if added else layer(x)
    expected = plain if slope is None else F.leaky_relu(plain, slope)
    onto = other.bfloat16().contiguous(memory_format=torch.channels_last) if added else None
    with torch.autocast("cpu", torch.bfloat16):
        x = x.contiguous(memory_format=LAYOUTS[layout])
        found = convolved(layer, x, onto=onto, slope=slope)
    assert found.dtype == torch.bfloat16
    _close(found, expected)


@torch.inference_mode()
def test_fused_layers() -> None:
    """Normalised ones, and several one after the other."""
    x = _picture(40, 50)
    norm = nn.BatchNorm2d(CHANNELS).eval()
    norm.running_mean, norm.running_var = torch.linspace(-1, 1, CHANNELS), torch.linspace(0.5, 2, CHANNELS)
    normed = NormedConv2d(_layer(3), norm)
    several = ActiveConvs(_layer(3), nn.ReLU(), _layer(5), nn.LeakyReLU(0.1))
    with torch.autocast("cpu", torch.bfloat16):
        found = normed(x), active(normed, x), several(x)
    _close(found[0], norm(normed[0](x)))
    _close(found[1], F.relu(norm(normed[0](x))))
    _close(found[2], nn.Sequential(*several)(x))


def test_single_precision_is_not_touched() -> None:
    """The same bits as the layers one after the other."""
    layer, x = _layer(3, "reflect"), _picture(200, 30)
    with torch.inference_mode():
        assert torch.equal(active(layer, x, slope=0.2), F.leaky_relu(layer(x), 0.2))
        assert torch.equal(active(layer, x, onto=x.clone()), F.relu(layer(x) + x))


def test_gradients_flow() -> None:
    """In training, in bf16 too, they are those of the layers."""
    layer, x = _layer(3), _picture(16, 16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        active(layer, x, slope=0.2).float().sum().backward()
        found = x.grad
        x.grad = None
        F.leaky_relu(layer(x), 0.2).float().sum().backward()
    assert found is not None and x.grad is not None
    assert torch.equal(found, x.grad)


@torch.inference_mode()
def test_bands_see_what_lies_around() -> None:
    """A function of pixels and those beside them gives the same in bands, at twice the size too."""

    def blurred(x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, stride=1), scale_factor=2)

    x = _picture(150, 20)
    assert torch.equal(by_bands(blurred, x, around=2), blurred(x))


@torch.inference_mode()
def test_means_in_bands() -> None:
    x = _picture(150, 20)
    torch.testing.assert_close(mean_of(torch.square, x), x.square().mean(dim=(2, 3)))
