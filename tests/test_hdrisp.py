"""raw_to_tonemappedHDR against numbers of the authors' own code, and its tiles against the whole picture."""

from functools import cache
from pathlib import Path

import pytest
import torch
from standins import numbers, tiled
from tf_rule import DATA, published_arrays
from torch import Tensor

from hdrcli import memory
from hdrcli.errors import WeightsError, WrongStateError
from hdrcli.nets import _tone
from hdrcli.nets._whole import Facts
from hdrcli.nets.hdrisp import SPEC, HdrIsp

ATOL = 2e-5
IMPORT = SPEC.importers["torch-state-dict"]


@cache
def _expected() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in numbers(DATA / "hdrisp.npz").items()}


@cache
def _published() -> dict[str, Tensor]:
    """As the authors save: from nn.DataParallel."""
    return {f"module.{name}": torch.from_numpy(array) for name, array in published_arrays("hdrisp").items()}


@pytest.fixture(scope="module")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hdrisp") / "raw_to_tonemappedHDR.pth"
    torch.save(_published(), path)
    return path


@pytest.fixture(scope="module")
def network(published_file: Path) -> HdrIsp:
    network = HdrIsp()
    network.load_state_dict(IMPORT([published_file], {}))
    return network


def _slim(*, coded: bool = False, skip: bool = False, view: int = 0) -> HdrIsp:
    torch.manual_seed(3)
    return HdrIsp(width=4, coded=coded, skip=skip, view=view).double()


def _planes(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.rand(count, 4, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parity
@pytest.mark.parametrize("level", range(5))
@torch.inference_mode()
def test_equals_the_authors_code(network: HdrIsp, level: int) -> None:
    """Case a is a batch of two squares, b a single oblong, of which level 0 is compared at every fourth pixel."""
    found = network.at_level(_expected()["a/input"], level)
    worst = float((found - _expected()[f"a/level{level}"]).abs().max())
    print(f"level {level}: differs by {worst:.1e}")
    assert worst <= ATOL
    if level in (4, 2):
        oblong = network.at_level(_expected()["b/input"], level)
        torch.testing.assert_close(oblong, _expected()[f"b/level{level}"], rtol=0, atol=ATOL)
    if level == 0:
        oblong = network.whole(_expected()["b/input"])[:, :, ::4, ::4]
        torch.testing.assert_close(oblong, _expected()["b/level0_every4"], rtol=0, atol=ATOL)


@torch.inference_mode()
def test_statistics_are_those_of_the_whole() -> None:
    network, image = _slim(), _planes(24, 40)
    context = network.prepare(image)
    assert all(len(value) == 1 for value in context.values())
    assert torch.equal(network(image, context), network.whole(image))


@pytest.mark.parametrize(("skip", "view"), [(False, 0), (True, 0), (True, 24)])
@pytest.mark.parametrize(("height", "width"), [(448, 24), (16, 464)])
@torch.inference_mode()
def test_tiled_equals_whole(height: int, width: int, skip: bool, view: int) -> None:
    """Tiles at all borders included, three at a time; a tile by itself gives something else."""
    network, image = _slim(skip=skip, view=view), _planes(height, width)
    whole, context = network.whole(image), network.prepare(image)
    found = tiled(network, image, context, tile=16, batch=3)
    assert (found - whole).abs().max() <= 1e-12
    part = image[:, :, :16, :16]
    assert (network.whole(part) - whole[:, :, :32, :32]).abs().max() > 1e-6, "statistics make no difference"


@torch.inference_mode()
def test_tiled_equals_whole_in_single_precision(network: HdrIsp) -> None:
    image = _planes(16, 400).float()
    whole, context = network.whole(image), network.prepare(image)
    found = tiled(network, image, context, tile=32)
    worst = float((found - whole).abs().max())
    print(f"tiled differs by {worst:.1e}")
    assert worst <= 5e-6


@pytest.fixture
def small_survey(monkeypatch: pytest.MonkeyPatch) -> None:
    """Surveys by tiles no larger than the network's own, whose halo is made that of a stage."""
    monkeypatch.setattr("hdrcli.nets.hdrisp._HALO", 34)


@pytest.mark.usefixtures("small_survey")
@pytest.mark.parametrize(
    ("height", "width", "tile", "tiles"), [(152, 24, 16, 9), (24, 168, 40, 6), (112, 120, 24, 20), (32, 40, 16, 1)]
)
@torch.inference_mode()
def test_a_survey_finds_what_the_whole_picture_has(height: int, width: int, tile: int, tiles: int) -> None:
    """A picture of one tile is surveyed as well."""
    network, image = _slim(), _planes(height, width)
    calls = []
    whole, surveyed = network.prepare(image), network.survey(image, tile, lambda: calls.append(0))
    assert whole.keys() == surveyed.keys()
    for name, value in whole.items():
        torch.testing.assert_close(surveyed[name], value, rtol=1e-10, atol=1e-12, msg=name)
    passes, rest = divmod(len(calls), 21)
    assert rest == 0, "18 passes over all tiles for statistics and 3 for features"
    assert passes == tiles


@torch.inference_mode()
def test_a_survey_in_single_precision_gives_the_same_picture(network: HdrIsp) -> None:
    """At full width, more than one tile wide; 290 packed pixels are seen by each."""
    image = _planes(16, 424).float()
    given = {name: value.clone() for name, value in network.survey(image, 16).items()}
    worst = float((network(image, given) - network.whole(image)).abs().max())
    print(f"surveyed differs by {worst:.1e}")
    assert worst <= 5e-6


class _Waves:
    """A picture that is made when it is looked at."""

    def __init__(self, height: int, width: int) -> None:
        self.shape = (1, 4, height, width)

    def __getitem__(self, window: tuple[slice, slice, slice, slice]) -> Tensor:
        planes, rows, columns = (
            torch.arange(*part.indices(n)) for part, n in zip(window[1:], self.shape[1:], strict=True)
        )
        return (planes[:, None, None] + rows[:, None] * columns).float().cos()[None]


@pytest.mark.usefixtures("small_survey")
@torch.inference_mode()
def test_a_survey_holds_the_features_it_claims() -> None:
    """Twice the picture takes more memory by what is held for each pixel, and by nothing else."""
    network = _slim().float()
    short, long = (_Waves(24, width) for width in (440, 840))  # cut into windows of one size
    needed = [memory.peak(lambda image=image: network.survey(image, 40)) for image in (short, long)]
    assert needed[1] - needed[0] <= 1.05 * 4 * network.surveyed * 24 * 400


@torch.inference_mode()
def test_a_tile_must_say_where_it_lies() -> None:
    network, image = _slim(), _planes(32, 24)
    context = network.prepare(image)
    with pytest.raises(WrongStateError, match="where in the picture"):
        network(image[:, :, :16], context)


@pytest.mark.parametrize(("skip", "view", "halo"), [(False, 0, 171), (True, 0, 171), (False, 24, 193)])
@pytest.mark.parametrize("axis", [2, 3], ids=["rows", "columns"])
@torch.inference_mode()
def test_the_halo_is_exact(axis: int, skip: bool, view: int, halo: int) -> None:
    """Whatever a value that is not a number reaches, an output pixel depends on it; all phases of the lattice."""
    network = _slim(skip=skip, view=view).float()
    middle = 208
    image = _planes(*((2 * middle, 16) if axis == 2 else (16, 2 * middle))).float()
    context = network.prepare(image)
    reaches = []
    for edge in range(middle, middle + 8):
        for before in (True, False):
            spoilt = image.clone()
            side = spoilt.narrow(axis, 0, edge) if before else spoilt.narrow(axis, edge, 2 * middle - edge)
            side.fill_(torch.nan)
            places = network(spoilt, context).isnan().any(dim=5 - axis).any(dim=1)[0].nonzero() // 2
            reaches.append(int(places.max()) - edge + 1 if before else edge - int(places.min()))
    assert max(reaches) == network.tiling.halo == halo


@torch.inference_mode()
def test_a_large_picture_has_the_tone_of_its_view() -> None:
    plain, toned = _slim(skip=True), _slim(skip=True, view=24)
    image = _planes(64, 80)
    seen = _tone.view(image, 24)
    assert seen is not None
    assert seen.shape == (1, 4, 24, 32)
    wanted = _tone.cells(torch.logit(plain.whole(seen)), 128, 160)
    for found in (toned.prepare(image), toned.survey(image, 16)):
        torch.testing.assert_close(found["tone"], wanted, rtol=0, atol=1e-9)
    expected = torch.sigmoid(_tone.toned(torch.logit(plain.whole(image)), wanted))
    torch.testing.assert_close(toned.whole(image), expected, rtol=0, atol=1e-9)
    assert torch.equal(toned.whole(seen), plain.whole(seen)), "a picture of the size of a view has its own tone"


def test_the_tone_leaves_detail_alone() -> None:
    picture = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    cells = torch.nn.functional.avg_pool2d(picture, _tone.CELL)
    torch.testing.assert_close(_tone.toned(picture, cells + 0.5), picture + 0.5, rtol=0, atol=1e-12)
    steps = (_tone.toned(picture, torch.randn_like(cells)) - picture).diff(dim=3).abs().max()
    assert steps < 0.2, f"neighbours are changed by up to {steps:.3f} more"


def test_doubling_is_that_of_aligned_corners() -> None:
    """What it does piece by piece is what torch does with the whole."""
    image, x = _planes(24, 40), torch.rand(2, 3, 12, 20, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(Facts(image, {}, 4).doubled(x), expected, rtol=0, atol=1e-14)


@torch.inference_mode()
def test_pictures_of_a_batch_do_not_mix() -> None:
    network, batch = _slim(), _planes(16, 24, count=3)
    apart = torch.cat([network(picture[None], {}) for picture in batch])
    torch.testing.assert_close(network(batch, {}), apart, rtol=0, atol=1e-12)


@torch.inference_mode()
def test_skip_begins_the_last_picture_with_that_of_level_1() -> None:
    plain, with_skip = _slim(), _slim(skip=True)
    state = with_skip.state_dict()
    added = {"skip.weight", "trust.conv.weight", "trust.conv.bias"}
    assert set(state) - set(plain.state_dict()) == added
    plain.load_state_dict({name: value for name, value in state.items() if name not in added})
    image = _planes(24, 32)
    assert torch.equal(plain.at_level(image, 1), with_skip.at_level(image, 1))
    with_detail = with_skip.whole(image)
    with_skip.skip.weight.zero_()
    without = with_skip.whole(image)
    assert (with_detail - without).abs().max() > 1e-3
    carried = torch.logit(without) - torch.logit(plain.whole(image))
    coarser = torch.logit(plain.at_level(image, 1))
    doubled = torch.nn.functional.interpolate(coarser, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(carried, doubled)


@torch.inference_mode()
def test_coded_planes_are_what_the_network_sees() -> None:
    plain, coded = _slim(), _slim(coded=True)
    plain.load_state_dict(coded.state_dict())
    image = _planes(24, 32)
    torch.testing.assert_close(coded.whole(image), plain.whole(torch.asinh(20 * image) / 4))


@pytest.mark.parametrize("level", range(5))
def test_every_level_can_be_trained(level: int) -> None:
    """All that lies at and below a level learns from it; what lies above, and the other outputs, does not."""
    network = _slim()
    picture = network.at_level(_planes(32, 48), level)
    assert picture.shape == (1, 3, 64 >> level, 96 >> level)
    picture.square().mean().backward()
    learning = {name for name, value in network.named_parameters() if value.grad is not None}
    above = tuple(f"{part}{upper}." for upper in range(level) for part in ("level", "up"))
    outputs = tuple(f"out.{other}." for other in range(5) if other != level)
    expected = {name for name in network.state_dict() if not name.startswith(above + outputs)}
    assert learning == expected
    assert all(value.grad is None or value.grad.isfinite().all() for value in network.parameters())


@torch.inference_mode()
def test_half_precision_is_close(network: HdrIsp) -> None:
    """Statistics stay in single precision."""
    image = _expected()["b/input"]
    context = network.prepare(image)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(image, context)
    worst = float((found.float() - network.whole(image)).abs().max())
    print(f"bfloat16 differs by {worst:.1e}")
    assert worst <= 0.05


def test_import_is_strict(tmp_path: Path, published_file: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({name: value for name, value in _published().items() if "IEM_l1_4.fc3" not in name}, path)
    with pytest.raises(WeightsError, match=r"IEM_l1_4.fc3.weight is missing; IEM_l1_4.fc3.bias is missing$"):
        IMPORT([path], {})
    with pytest.raises(WeightsError, match=r"conv_l1_d1.conv_3a.conv2d.weight is 32x4x3x3, not 16x4x3x3.* more"):
        IMPORT([published_file], {"width": 16})
    with pytest.raises(WeightsError, match=r"skip"):
        IMPORT([published_file], {"skip": True})
