"""The synthetic scene, and the demonstration made of it."""

from pathlib import Path

import numpy as np
import pytest
from standins import save_standin

from hdrcli import camera, cards, codecs, raw, scene, sensor
from hdrcli.color import luminance
from hdrcli.image import Transfer
from hdrcli.tasks.demo import demo


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration of a small rendering, made by tiny models."""
    folder, models = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("models")
    for name in ("lumen", "lumenraw"):
        save_standin(name, models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cards.FOLDER_VARIABLE, str(models))
        sentences = list(demo(folder, width=192, height=128))
    assert len(sentences) == 6
    assert all(str(folder) in sentence for sentence in sentences)
    return folder


def test_scene_has_the_contrast_of_a_room_with_a_window() -> None:
    light = scene.render(192, 128)
    assert (light.shape, light.dtype) == ((128, 192, 3), np.float32)
    assert light.min() > 0
    assert light.max() == pytest.approx(20_000, rel=0.6), "the sun is in the picture"
    low, middle, high = np.percentile(luminance(light), [0.1, 50, 99.9])
    assert np.log2(high / low) > 12
    assert 0.05 < middle < 0.3
    np.testing.assert_array_equal(light, scene.render(192, 128))


def test_everything_is_there(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "demo.dng",
        "demo.jpg",
        "demo_developed.jpg",
        "demo_hdr.exr",
        "demo_reference.exr",
        "demo_sheet.png",
    ]


def test_jpeg_is_the_reference_with_its_highlights_clipped(written: Path) -> None:
    reference = codecs.read(written / "demo_reference.exr").pixels
    picture = codecs.read(written / "demo.jpg")
    assert np.mean(picture.pixels.max(axis=2) > 0.99) == pytest.approx(0.10, abs=0.03)
    error = picture.to(Transfer.LINEAR).pixels - np.clip(reference, 0, 1)
    assert np.sqrt(np.mean(error**2)) < 0.03


def test_mosaic_has_the_scene_in_true_colours(written: Path) -> None:
    """Levels, white balance and matrix come back from the DNG: what the sensor saw is the scene again."""
    mosaic = raw.read(written / "demo.dng")
    blue, gr, red, gb = sensor.camera_linear(mosaic)
    seen = np.stack([red, (gr + gb) / 2, blue], axis=-1)
    light = scene.render(192, 128)
    small = light.reshape(64, 2, 96, 2, 3).mean(axis=(1, 3))
    flat = (
        (np.abs(small / light[::2, ::2] - 1).max(axis=2) < 0.05) & (seen.max(axis=2) < 0.9) & (seen.min(axis=2) > 0.02)
    )
    gains = seen[flat] / small[flat]
    assert flat.sum() > 500
    overall = np.median(gains)
    np.testing.assert_allclose(np.median(gains, axis=0), overall, rtol=0.03)
    assert np.mean(mosaic.counts == mosaic.white) == pytest.approx(0.02, abs=0.015)


def test_results_have_the_size_of_the_scene(written: Path) -> None:
    for name in ("demo_hdr.exr", "demo_developed.jpg"):
        image = codecs.read(written / name)
        assert (image.width, image.height) == (192, 128), name


def test_exposure_is_the_one_stated() -> None:
    light = scene.render(96, 64)
    assert np.mean((light * camera.exposure_for(light, 0.1)).max(axis=2) >= 1) == pytest.approx(0.1, abs=0.01)
