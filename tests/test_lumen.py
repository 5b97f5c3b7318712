"""lumen: one rising curve per picture; without denoising, every number that is not clipped is that curve's alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import known_model

import hdrcli
from hdrcli import infer
from hdrcli.errors import UsageError
from hdrcli.infer import Compute
from hdrcli.nets import _colours, lumen
from hdrcli.nets._colours import BLOCK, Clipped, colours, followed, ratios
from hdrcli.nets.lumen import Lumen
from hdrcli.network import Context, Network
from hdrcli.tasks.common import Denoising


@pytest.fixture(scope="module")
def network() -> Lumen:
    torch.manual_seed(0)
    net = Lumen(**lumen.SPEC.tiny).eval()
    net.curve_mean.copy_(torch.linspace(-3, 1, 255))
    net.curve_basis.copy_(0.1 * torch.randn(lumen.COEFFICIENTS, 255))
    for head in (net.head, net.cleaner.head):
        torch.nn.init.normal_(head.weight, std=0.1)
    return net


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_any_coefficients_give_a_curve_that_rises_from_0_to_1(network: Lumen, seed: int) -> None:
    wild = 5 * torch.randn(4, lumen.COEFFICIENTS, generator=torch.Generator().manual_seed(seed))
    curve = network.curve(wild)
    assert (curve.diff(dim=1) >= 0).all()
    assert torch.allclose(curve[:, [0, -1]], torch.tensor([[0.0, 1.0]]), atol=1e-5)


def prepared(network: Lumen, image: torch.Tensor) -> Context:
    """What the network finds in a picture, but that it is to leave the noise."""
    return {**network.prepare(image), "noise": torch.zeros(1, 1, 1, 1)}


def test_unclipped_channels_follow_the_curve_exactly_unless_they_are_evened_out(network: Lumen) -> None:
    torch.manual_seed(1)
    image = torch.rand(1, 3, 64, 96)
    image[:, :, 20:40, 30:60] = 1.0
    image[:, 2, :10] = 0.999
    with torch.inference_mode():
        context = prepared(network, image)
        output = network(image, context)
    linear = lumen.linearise(image, context["curve"])
    clipped = 255 * image > 249.5
    near = F.max_pool2d(clipped.float(), 25, stride=1, padding=12) > 0
    strong = 255 * image.amin(dim=1, keepdim=True) < 100
    exact = ~clipped & (~near | (255 * image < 219.5)) & (strong | ~clipped.any(dim=1, keepdim=True))
    assert exact.sum() > 9000 and torch.equal(output[exact], linear[exact])
    full = image == 1.0
    assert (output[full] >= linear[full]).all() and (output[full] > linear[full]).any()


def test_a_speck_in_what_is_clipped_is_clipped_too_and_nowhere_else() -> None:
    image = torch.full((1, 3, 32, 64), 0.5)
    image[..., :32] = 1.0
    image[:, 1, 13, [9, 50]] = 240 / 255
    image[:, 1, 14, [9, 50]] = 200 / 255
    found = lumen.clipping(image)
    expected = (image == 1.0).float()
    expected[:, 1, 13, 9] = 1.0
    assert torch.equal(found, expected)


def evened(light: torch.Tensor, codes: torch.Tensor, clipped: torch.Tensor) -> torch.Tensor:
    """Light (N, 3, H, W) with the colours of its clipped pixels evened out."""
    pixels = Clipped(clipped)
    lit, code, mask = (pixels.of(x) for x in (light, codes, clipped))
    colour = colours(pixels.put(torch.zeros_like(light), lit * mask.amax(dim=0)))
    return pixels.put(light, _colours.evened(lit, code, mask, pixels.of(colour, BLOCK)))


def test_specks_of_colour_in_what_is_clipped_are_evened_out() -> None:
    torch.manual_seed(0)
    codes = torch.ones(1, 3, 32, 32)
    codes[:, 2] -= 0.05 * torch.rand(32, 32)  # blue falls short of clipping, pixel by pixel
    clipped = lumen.clipping(codes)
    light = torch.where(clipped > 0, 4.0, 0.9)
    found = evened(light, codes, clipped)
    before, after = (x[:, 2, 4:-4, 4:-4] / x[:, 0, 4:-4, 4:-4] for x in (light, found))
    assert after.std() < before.std() / 4, f"blue differs by {after.std():.3f}, before by {before.std():.3f}"
    assert torch.allclose(found.mean(dim=1), light.mean(dim=1), rtol=1e-5)


def test_strong_colours_and_what_is_not_clipped_are_not_evened_out() -> None:
    light = torch.rand(1, 3, 16, 16)
    neon = torch.tensor([1.0, 0.9, 0.3]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    assert torch.equal(evened(light, neon, (neon == 1).float()), light)
    assert torch.equal(evened(light, light, torch.zeros_like(light)), light)


def wall(colour: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A smooth wall of one colour, lit from its middle: its light, its light up to 1.0, and where that is clipped."""
    row, column = torch.meshgrid(torch.arange(-32.0, 32), torch.arange(-48.0, 48), indexing="ij")
    light = torch.tensor(colour).view(1, 3, 1, 1) * torch.exp(-(row**2 + column**2) / 40**2)
    return light, light.clamp(max=1), (light >= 1).float()


@pytest.mark.parametrize("colour", [(1.1, 0.6, 0.4), (0.3, 1.1, 0.9), (0.9, 0.2, 1.1), (1.1, 1.05, 0.7)])
def test_clipped_channels_follow_those_that_are_not(colour: tuple[float, float, float]) -> None:
    truth, linear, clipped = wall(colour)
    pixels = Clipped(clipped)
    lit, mask = pixels.of(linear), pixels.of(clipped)
    codes = linear ** (1 / 2.2)
    around = [pixels.of(x, BLOCK) for x in ratios(linear, codes, clipped)]
    found, expected = (followed(2 ** (0.5 * mask) * lit, lit, mask, *around)[mask > 0], pixels.of(truth)[mask > 0])
    before = (2**0.5 / expected).log2().mean()
    after = (found / expected).log2()
    assert after.abs().mean() < before / 3, f"{after.mean():.3f} stops off instead of {before:.3f}"
    unclipped = mask == 0
    assert torch.equal(followed(lit, lit, mask, *around)[unclipped], lit[unclipped])


def test_clipped_channels_are_left_alone_where_nothing_tells_their_colour() -> None:
    torch.manual_seed(0)
    linear = torch.rand(1, 3, 64, 64)  # colours are all different
    linear[:, :, 24:40, 24:40] = 1.0
    clipped = (linear == 1).float()
    pixels = Clipped(clipped)
    light, mask = 4 * pixels.of(linear), pixels.of(clipped)
    around = [pixels.of(x, BLOCK) for x in ratios(linear, linear, clipped)]
    assert torch.equal(followed(light, light, mask, *around), light)
    one = torch.zeros_like(mask)
    one[0] = 1
    assert ((followed(light, light / 4, one, *around) / light)[0].log2().abs() < 0.05).all()


def test_tables_of_clipped_pixels_are_put_back_where_they_were() -> None:
    torch.manual_seed(0)
    picture = torch.rand(2, 3, 8, 12)
    clipped = (torch.rand(2, 3, 8, 12) > 0.9).float()
    pixels = Clipped(clipped)
    place = clipped.amax(dim=1) > 0
    assert torch.equal(pixels.of(picture), picture.movedim(1, 0)[:, place])
    whole = picture.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    larger = Clipped(clipped.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))
    assert torch.equal(larger.of(picture, 4), larger.of(whole))
    changed = pixels.put(picture, -pixels.of(picture))
    assert torch.equal(changed, torch.where(place[:, None], -picture, picture))


def test_linearise_interpolates_between_codes() -> None:
    table = (torch.arange(256.0) / 255).square()[None]
    image = torch.tensor([0.0, 0.1, 0.5, 0.9999, 1.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert torch.allclose(lumen.linearise(image, table), image**2, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (64, 64), (33, 700)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_statistics_are_finite_for_any_picture(shape: tuple[int, int], value: float) -> None:
    found = lumen.features(torch.full((1, 3, *shape), value))
    assert found.shape == (1, lumen.FEATURES)
    assert found.isfinite().all() and (found >= 0).all() and (found <= 1).all()


def test_statistics_of_a_large_picture_are_those_of_the_small_one_it_shows() -> None:
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.random((1, 3, 384, 512), np.float32))
    large = small.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
    difference = (lumen.features(large) - lumen.features(small)).abs().max()
    assert difference < 0.02, f"differ by {difference:.4f}"


def test_nothing_is_added_where_nothing_is_clipped(network: Lumen) -> None:
    image = torch.rand(1, 3, 32, 32) * 0.9
    with torch.inference_mode():
        context = prepared(network, image)
        assert torch.equal(network(image, context), lumen.linearise(image, context["curve"]))


def test_codes_are_cleaned_but_for_what_is_clipped() -> None:
    torch.manual_seed(0)
    codes, noise = torch.rand(1, 3, 16, 16), 0.1 * torch.randn(1, 3, 16, 16)
    clipped = (torch.rand(1, 3, 16, 16) > 0.5).float()
    expected = torch.where(clipped > 0, codes, (codes - noise).clamp(0, 1))
    assert torch.allclose(lumen.cleaned(codes, clipped, noise), expected, atol=1e-6)


def test_tiles_are_cleaned_and_lit_as_the_whole_is(network: Lumen) -> None:
    image = np.random.default_rng(0).random((3, 352, 448), np.float32)
    image[:, 100:200, 150:300] = 1.0
    whole, tiled = (infer.run(network, image, Compute("cpu", "fp32", tile=side)) for side in (4096, 64))
    assert whole.tiles == 1 and tiled.tiles > 4
    np.testing.assert_allclose(tiled.pixels, whole.pixels, rtol=1e-5, atol=1e-6)


def test_what_is_black_stays_as_it_is(network: Lumen) -> None:
    torch.manual_seed(0)
    codes = (torch.rand(1, 3, 32, 64) > 0.9) / 255
    codes[..., 32:] += 0.2
    found = network.cleaner(codes, (slice(0, 32), slice(0, 64)))
    assert (found[..., :24] == 0).all() and (found[..., 40:] != 0).any()


def test_denoise_scales_what_is_taken_away(network: Lumen) -> None:
    image = torch.rand(1, 3, 32, 32) * 0.9
    with torch.inference_mode():
        none, half, full = (lumen_codes(network, Denoising(network, strength), image) for strength in (0.0, 0.5, 1.0))
    assert torch.allclose(none, image, atol=1e-3)
    inside = (full > 0) & (full < 1)
    assert (full - image).abs().max() > 0.01
    assert torch.allclose((half - image)[inside], ((full - image) / 2)[inside], atol=2e-3)


def lumen_codes(network: Lumen, way: Network, image: torch.Tensor) -> torch.Tensor:
    """The codes of the light that a network makes of a picture, by the curve that lumen finds in it."""
    curve = network.prepare(image)["curve"][0].double().numpy()
    light = way(image, way.prepare(image))[0].double().numpy()
    return torch.from_numpy(np.interp(light, curve, np.linspace(0, 1, 256))).float()[None]


def test_only_models_that_measure_noise_take_a_strength_of_at_most_1() -> None:
    picture = np.full((32, 32, 3), 128, np.uint8)
    with pytest.raises(UsageError, match="not in 0 to 1"):
        hdrcli.expand(picture, denoise=1.5)
    with pytest.raises(UsageError, match="does not measure noise"):
        hdrcli.expand(picture, model=known_model("expand"), denoise=0.5)
