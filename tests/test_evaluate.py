"""hdr eval: protocols equal the published numbers, pairs are never guessed, and every output says the same."""

import csv
import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from standins import known_model, numbers, save_standin

from hdrcli import codecs, outside, protocols
from hdrcli.cli.evaluate import Feed, ProtocolName
from hdrcli.cli.main import app
from hdrcli.color import srgb_decode, srgb_encode
from hdrcli.errors import HdrError, MissingExtraError, ReadError, UsageError
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.metrics import hanji
from hdrcli.protocols import METRICS, PROTOCOLS, Pair
from hdrcli.tasks import datasets, results, summary
from hdrcli.tasks.evaluate import INPUT, PREDICTION, Plan, Row, evaluate, protocol_for


def scene(seed: int = 0, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Light with smooth areas and about a tenth of it above 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / max(shape)
    light = np.exp(2 * np.sin(5 * x + seed) + np.cos(7 * y) - 1.2)[..., None] * np.array([1.0, 0.9, 0.8])
    return (light * rng.lognormal(0, 0.05, light.shape)).astype(np.float32)


def write(path: Path, pixels: np.ndarray) -> Path:
    """Linear light to EXR (32 bit) or encoded values to PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    linear = path.suffix == ".exr"
    image = Image(pixels.astype(np.float32), Transfer.LINEAR if linear else Transfer.SRGB)
    codecs.write(image, path, "exr" if linear else "png", codecs.WriteOptions(half=False))
    return path


def photograph(light: np.ndarray) -> np.ndarray:
    return np.rint(255 * srgb_encode(np.clip(light, 0, 1))).astype(np.float32) / np.float32(255)


def plan(protocol: str, *, model: bool = False, task: str = "expand", without: tuple[str, ...] = ("vsi",)) -> Plan:
    chosen = PROTOCOLS[protocol]
    without = without if protocol == "hanji" else ()
    models = {"known": known_model(task)} if model else {}
    return Plan(chosen, chosen.metrics((), without), models, Compute(device="cpu"))


def run(samples: list, chosen: Plan) -> results.Evaluation:
    return results.Evaluation("hanji", "test", chosen, list(evaluate(samples, chosen, workers=2)))


def hdr(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hdrcli", "eval", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# ------------------------------------------------------------------------------------------------- the tables


def test_every_score_of_every_protocol_has_a_row_in_the_table_of_metrics() -> None:
    pair = Pair(scene(), scene(), scene().max(axis=2) > 1)
    for protocol in PROTOCOLS.values():
        names = protocol.metrics((), ())
        encoded = pair._replace(prediction=photograph(pair.prediction), reference=photograph(pair.reference))
        found = protocols.score(protocol, protocol.prepare(encoded if protocol.holds == Transfer.SRGB else pair), names)
        assert list(found) == names
        assert set(names) | set(protocol.also) <= set(METRICS)


def test_the_command_line_knows_the_tables() -> None:
    assert [name.value for name in ProtocolName] == list(PROTOCOLS)
    assert {feed.value for feed in Feed} == {"canonical", "native"}


def test_a_score_that_a_protocol_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="'musiq'"):
        PROTOCOLS["hanji"].metrics(("musiq",), ())
    with pytest.raises(UsageError, match="'rgb_uv'"):
        PROTOCOLS["hanji"].metrics((), ("rgb_uv",))


def test_mu_law_equals_the_authors_numbers() -> None:
    folder = Path(__file__).parent / "data"
    data = {**numbers(folder / "fhdr.npz"), **numbers(folder / "losses_fhdr.npz")}
    chosen = PROTOCOLS["mu-law"]
    for index in range(4):
        prediction = data["b/out3" if index < 2 else "score/near"][index % 2]
        reference = data["score/gt"][index % 2]
        a, b = (np.ascontiguousarray((picture.transpose(1, 2, 0) + 1) / 2) for picture in (prediction, reference))
        found = protocols.score(chosen, chosen.prepare(Pair(a, b, np.zeros(a.shape[:2], bool))), chosen.metrics((), ()))
        assert found["psnr_mu"] == pytest.approx(float(data["score/psnr_mu"][index]), abs=1e-3)
        assert found["ssim_published"] == pytest.approx(float(data["score/ssim"][index]), abs=1e-6)


def test_display_compares_whole_codes() -> None:
    reference = photograph(scene())
    prediction = np.clip(reference + np.float32(0.3 / 255), 0, 1)
    chosen = PROTOCOLS["display"]
    pair = chosen.prepare(Pair(prediction, reference, np.zeros(reference.shape[:2], bool)))
    np.testing.assert_array_equal(pair.prediction, pair.reference)
    assert protocols.score(chosen, pair, ["dE2000", "rgb_uv"])["dE2000"] == 0


# ------------------------------------------------------------------------------------------------ pairs of files


def test_pairs_of_files_give_the_scores_of_their_pixels(tmp_path: Path) -> None:
    light = scene()
    source = photograph(light)
    prediction = 3 * light**1.1
    write(tmp_path / "pred" / "a_hdr.exr", prediction)
    write(tmp_path / "ref" / "a.exr", light)
    write(tmp_path / "ldr" / "a.png", source)
    samples = datasets.file_pairs(tmp_path / "pred", tmp_path / "ref", tmp_path / "ldr", Transfer.LINEAR)
    result = run(samples, plan("hanji"))
    assert [row.system for row in result.rows] == [INPUT, PREDICTION]
    clipped = source.max(axis=2) >= 250 / 255 - 1e-6
    for row, picture in zip(result.rows, (srgb_decode(source), prediction), strict=True):
        expected = hanji.scores(hanji.align(picture.astype(np.float32), light, clipped), light, clipped)
        for name, value in expected.items():
            assert row.scores[name] == pytest.approx(value, rel=1e-4), name
    assert not result.notes


def test_without_the_input_the_clipped_reference_stands_for_it(tmp_path: Path) -> None:
    light = scene()
    path = write(tmp_path / "ref.exr", light)
    samples = datasets.file_pairs(write(tmp_path / "pred.exr", light), path, None, Transfer.LINEAR)
    result = run(samples, plan("hanji"))
    assert result.rows[0].system == INPUT and result.rows[0].scores["stops_clip"] > 0.1
    assert result.rows[1].scores["pu_psnr"] > 100
    assert "no --input" in result.notes[0]


@pytest.mark.parametrize(
    ("prediction", "reference", "error"),
    [
        ({"a.exr": (40, 64)}, {"a.exr": (48, 64)}, "64 x 40 pixels, but the reference a.exr 64 x 48"),
        ({"a.exr": (48, 64)}, {"a.png": (48, 64)}, "the reference a.png is an ordinary 8-bit picture"),
        ({"a.png": (48, 64)}, {"a.exr": (48, 64)}, "the prediction a.png is an ordinary 8-bit picture"),
    ],
)
def test_what_cannot_be_compared_fails_and_is_not_resized(
    tmp_path: Path, prediction: dict, reference: dict, error: str
) -> None:
    for folder, files in (("pred", prediction), ("ref", reference)):
        for name, shape in files.items():
            pixels = scene(shape=shape)
            write(tmp_path / folder / name, pixels if name.endswith("exr") else photograph(pixels))
    samples = datasets.file_pairs(tmp_path / "pred", tmp_path / "ref", None, Transfer.LINEAR)
    [one] = evaluate(samples, plan("hanji"), workers=1)
    assert error in one.error and one.hint and not one.rows


def test_a_missing_partner_is_named_before_any_work(tmp_path: Path) -> None:
    for name in ("pred/a.exr", "pred/b.exr", "ref/a.exr"):
        write(tmp_path / name, scene())
    with pytest.raises(UsageError, match=r"1 pictures have no partner.*b\.exr"):
        datasets.file_pairs(tmp_path / "pred", tmp_path / "ref", None, Transfer.LINEAR)
    write(tmp_path / "pred" / "a.png", photograph(scene()))
    with pytest.raises(UsageError, match="have one name"):
        datasets.file_pairs(tmp_path / "pred", tmp_path / "ref", None, Transfer.LINEAR)
    with pytest.raises(ReadError, match="there is no"):
        datasets.file_pairs(tmp_path / "nowhere", tmp_path / "ref", None, Transfer.LINEAR)


def test_numbers_that_are_no_light_are_counted(tmp_path: Path) -> None:
    light = scene()
    spoilt = light.copy()
    spoilt[0, 0, 0], spoilt[1, :3, 1] = np.nan, -0.5
    pred, ref = tmp_path / "p.exr", write(tmp_path / "r.exr", light)
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": spoilt}).write(str(pred))
    result = run(datasets.file_pairs(pred, ref, None, Transfer.LINEAR), plan("hanji"))
    text = " ".join(result.notes)
    assert "prediction: 1 values that are not finite numbers replaced" in text
    assert "prediction: 3 of 9216 negative values taken as 0" in text
    values, notes = datasets.cleaned(spoilt, "x")
    assert values.min() >= 0 and np.isfinite(values).all() and len(notes) == 2


# -------------------------------------------------------------------------------------------- data for models


def test_a_model_is_judged_on_scenes_through_the_virtual_camera(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path / f"s{seed}.exr", scene(seed, (400, 520)))
    samples, about = datasets.discover(tmp_path, "expand", views=1, seed=5, feed="canonical")
    assert "virtual camera: 2, views of each: 1, seed 5" in about
    assert [sample.group for sample in samples[:3]] == ["noisy", "clean", "phone"]
    first, clean = samples[0].load(), samples[1].load()
    np.testing.assert_array_equal(first.reference, clean.reference)
    assert 0.02 < clean.clipped.mean() < 0.3
    assert not np.array_equal(first.plain, clean.plain)
    again = datasets.discover(tmp_path, "expand", views=1, seed=5, feed="canonical")[0][0].load()
    np.testing.assert_array_equal(first.plain, again.plain)
    result = run(samples[:3], plan("hanji", model=True))
    assert [row.system for row in result.rows] == [INPUT, "known"] * 3
    assert result.rows[1].seconds > 0 and result.rows[1].device == "cpu"


def test_a_develop_model_is_judged_on_simulated_mosaics(tmp_path: Path) -> None:
    write(tmp_path / "val" / "s.exr", scene(3, (400, 520)))
    samples, _ = datasets.discover(tmp_path, "develop", views=1, seed=0, feed="canonical")
    assert [sample.group for sample in samples] == ["camera 1", "camera 2", "camera 3"]
    result = run(samples[:1], plan("display", model=True, task="develop"))
    plain, known = (row.scores for row in result.rows)
    assert known["psnr"] > plain["psnr"], "the fusion is nearer to its target than plain sRGB"


def test_ldr_and_hdr_pairs_go_by_sorted_name_and_share_a_scale(tmp_path: Path) -> None:
    light = scene()
    write(tmp_path / "test" / "LDR" / "1.png", photograph(light))
    write(tmp_path / "test" / "HDR" / "one.exr", light / 40)
    samples, about = datasets.discover(tmp_path, "expand", views=1, seed=0, feed="canonical")
    loaded = samples[0].load()
    np.testing.assert_allclose(loaded.reference, light, rtol=0.05)
    assert "sorted name" in about and "reference scaled by" in loaded.notes[0]
    with pytest.raises(UsageError, match="models that expand"):
        datasets.discover(tmp_path, "develop", views=1, seed=0, feed="canonical")
    write(tmp_path / "test" / "HDR" / "two.exr", light)
    with pytest.raises(UsageError, match="holds 1 pictures"):
        datasets.discover(tmp_path, "expand", views=1, seed=0, feed="canonical")


def test_raw_and_target_pairs_go_by_name(tmp_path: Path) -> None:
    import cv2

    counts = np.random.default_rng(0).integers(60, 1000, (32, 48)).astype(np.uint16)
    for name in ("huawei_raw", "canon"):
        (tmp_path / "test" / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "test" / "huawei_raw" / "7.png"), counts)
    write(tmp_path / "test" / "canon" / "7.png", photograph(scene(shape=(32, 48))))
    samples, _ = datasets.discover(tmp_path, "develop", views=1, seed=0, feed="native")
    result = run(samples, replace(plan("display", model=True, task="develop"), feed="native"))
    assert not result.failed and [row.image for row in result.rows] == ["7", "7"]


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to evaluate"):
        datasets.discover(tmp_path, "expand", views=1, seed=0, feed="canonical")
    with pytest.raises(UsageError, match="no folder"):
        datasets.discover(tmp_path / "x", "expand", views=1, seed=0, feed="canonical")


def test_the_protocol_suits_the_models() -> None:
    assert protocol_for(None, {}) == "hanji"
    assert protocol_for(None, {"a": known_model("expand")}) == "hanji"
    assert protocol_for(None, {"a": known_model("develop")}) == "display"
    with pytest.raises(UsageError, match="does not suit"):
        protocol_for("hanji", {"a": known_model("develop")})


# ------------------------------------------------------------------------------------------------ what comes out


def rows(scores: dict[str, list[float]], scenes: list[str]) -> list[Row]:
    return [
        Row(f"p{index}", "", place, system, {"pu_psnr": values[index], "stops_clip": values[index]}, 1.0)
        for index, place in enumerate(scenes)
        for system, values in scores.items()
    ]


def test_means_leave_out_what_does_not_apply() -> None:
    found = rows({"a": [10, float("nan"), 30]}, ["x", "y", "z"])
    assert summary.mean(found, "a", "all", "pu_psnr") == (20, 2)
    assert np.isnan(summary.mean(found, "b", "all", "pu_psnr").value)


def test_worst_first_whichever_way_is_better() -> None:
    found = rows({"a": [1, 2, 3, 4, 5, 6, 7]}, list("abcdefg"))
    assert [row.image for row in summary.worst(found, "a", "pu_psnr")] == ["p0", "p1", "p2", "p3", "p4"]
    assert [row.image for row in summary.worst(found, "a", "stops_clip")] == ["p6", "p5", "p4", "p3", "p2"]


def test_the_bootstrap_pairs_pictures_and_draws_scenes() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(20, 5, 200)
    gain = rng.normal(1, 0.5, 200)
    found = rows({"a": list(base), "b": list(base + gain)}, [f"s{index}" for index in range(200)])
    mean, low, high, scenes = summary.difference(found, "b", "a", "pu_psnr")
    assert mean == pytest.approx(gain.mean()) and scenes == 200
    width = 2 * 1.96 * gain.std() / np.sqrt(200)
    assert high - low == pytest.approx(width, rel=0.1), "pairing takes the spread of the pictures out"
    repeated = rows({"a": list(base), "b": list(base + gain)}, [f"s{index % 4}" for index in range(200)])
    assert summary.difference(repeated, "b", "a", "pu_psnr").scenes == 4
    alone = rows({"a": [1.0], "b": [2.0]}, ["x"])
    assert np.isnan(summary.difference(alone, "b", "a", "pu_psnr").low)


def test_the_command_prints_tables_json_and_csv(tmp_path: Path) -> None:
    for index in range(2):
        light = scene(index)
        write(tmp_path / "pred" / f"{index}.exr", light**1.1)
        write(tmp_path / "ref" / f"{index}.exr", light)
    table = tmp_path / "scores.csv"
    done = hdr(tmp_path / "pred", tmp_path / "ref", "--json", "--csv", table, "--report", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "hdrcli-eval/1" and found["protocol"] == "hanji" and found["white_nits"] == 203
    assert "10000" in found["peak"] and found["versions"]["torch"]
    assert {row["system"] for row in found["means"]} == {"input", "prediction"}
    assert found["differences"][0]["to"] == "prediction"
    assert len(found["images"]) == 4 and found["images"][0]["pu_vsi"] < 1
    assert (tmp_path / "out" / "scores.csv").read_text() == table.read_text()
    assert "<svg" in (tmp_path / "out" / "index.html").read_text()
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert len(lines) == 4 and float(lines[0]["pu_psnr"]) == found["images"][0]["pu_psnr"]
    shown = hdr(tmp_path / "pred", tmp_path / "ref", "--without", "vsi")
    assert shown.returncode == 0, shown.stderr
    for words in ("protocol: hanji", "peak: 10000 cd/m2", "each picture", "difference to prediction", "worst pictures"):
        assert words in shown.stdout


def test_the_command_fails_on_a_pair_and_goes_on(tmp_path: Path) -> None:
    for index in range(2):
        write(tmp_path / "pred" / f"{index}.exr", scene(index, (48 + 2 * index, 64)))
        write(tmp_path / "ref" / f"{index}.exr", scene(index))
    done = hdr(tmp_path / "pred", tmp_path / "ref", "--json", "--without", "vsi")
    assert done.returncode == 1 and "nothing is resized" in done.stderr
    found = json.loads(done.stdout)
    assert [one["image"] for one in found["failed"]] == ["1"] and len(found["images"]) == 2


def test_the_command_compares_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDR_MODELS_DIR", str(tmp_path / "models"))
    for name in ("lumen", "lumenraw"):
        save_standin(name, tmp_path / "models")
    write(tmp_path / "data" / "s.exr", scene(0, (64, 80)))
    done = hdr("--model", "lumen,lumen", tmp_path / "data", "--json", "--without", "vsi")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["models"]["lumen"]["seconds_per_megapixel"] > 0 and found["devices"]
    assert len(found["images"]) == 6
    mixed = hdr("--model", "lumen,lumenraw", tmp_path / "data")
    assert mixed.returncode == 2 and "cannot be compared" in mixed.stderr
    assert hdr("--model", "lumen", tmp_path, tmp_path).returncode == 2


def test_leaving_early_finishes_what_has_begun_and_begins_nothing_more() -> None:
    begun, ended = [], []

    def load(index: int) -> datasets.Loaded:
        begun.append(index)
        time.sleep(0.05)
        ended.append(index)
        light = scene(index)
        return datasets.Loaded(light, light.max(axis=2) > 1, np.minimum(light, 1))

    samples = [datasets.Sample(str(index), partial(load, index), str(index)) for index in range(30)]
    outcomes = evaluate(samples, plan("hanji"), workers=2)
    assert next(outcomes).rows
    outcomes.close()
    assert sorted(begun) == sorted(ended) and len(begun) < 20


def test_options_that_do_not_belong_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDR_MODELS_DIR", str(tmp_path / "models"))
    save_standin("lumen", tmp_path / "models")
    for options, words in (
        (("--model", "lumen", tmp_path, "--input", tmp_path), "--input goes with PRED and REF"),
        (("--model", "lumen", tmp_path, "--look", "fusion"), "--look is for models that develop"),
    ):
        with pytest.raises(UsageError, match=words):
            app(["eval", *map(str, options)], standalone_mode=False)


@pytest.mark.shared_data
def test_the_unprocessed_input_scores_as_known_on_real_scenes(shared_data: Path) -> None:
    samples, _ = datasets.discover(shared_data / "hdr", "expand", views=1, seed=0, feed="canonical")
    result = run([sample for sample in samples if sample.group == "clean"][:8], plan("hanji"))
    found = {name: summary.mean(result.rows, INPUT, "all", name).value for name in result.plan.metrics}
    assert 17 < found["pu_psnr"] < 30, found
    assert found["pu_psnr"] + 2 < found["pu_psnr_crf"] < 40, found
    assert found["pu_psnr_clip"] < found["pu_psnr"] and 0.2 < found["stops_clip"] < 2, found


# --------------------------------------------------------------------------------------------- other programs


@pytest.mark.parametrize(
    ("name", "module", "command"), [("cvvdp", "pycvvdp", "'hdrcli[eval]'"), ("musiq", "pyiqa", "pyiqa")]
)
def test_a_missing_program_is_named_with_its_pip_command(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, command: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        outside.check((name,), None)
    assert caught.value.hint == f"pip install {command}"


def test_a_program_that_is_there_but_broken_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pycvvdp.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pycvvdp", raising=False)
    with pytest.raises(MissingExtraError, match="does not load: operator torchvision::nms"):
        outside.check(("cvvdp",), None)


def test_other_programs_get_absolute_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """ColorVideoVDP and HDR-VDP-3 are shown cd/m2, 1.0 at 203, within the range of the display."""
    seen = []
    monkeypatch.setattr(outside, "color_video_vdp", lambda *light: seen.extend(light) or 9.5)
    light = scene()
    light[0, 0] = 0, 1, 100
    pair = Pair(light, light, light.max(axis=2) > 1)
    assert protocols.score(PROTOCOLS["hanji"], pair, ["cvvdp"]) == {"cvvdp": 9.5}
    for picture in seen:
        np.testing.assert_allclose(picture[0, 0], [0.005, 203, 10000], rtol=1e-6)


def test_the_versions_of_other_programs_are_named_where_they_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "version", lambda package: f"{package} 1.2")
    assert "cvvdp" not in results.versions(["pu_psnr"])
    assert results.versions(["pu_psnr", "cvvdp", "liqe"])["pyiqa"] == "pyiqa 1.2"


def test_hdrvdp3_is_a_command(tmp_path: Path) -> None:
    light = scene()
    script = tmp_path / "vdp.py"
    script.write_text(
        "import pathlib, sys; print('Q =', sum(pathlib.Path(p).stat().st_size > 0 for p in sys.argv[1:]))"
    )
    assert outside.hdrvdp3(f"{sys.executable} {script} {{pred}} {{ref}}", light, light) == 2
    with pytest.raises(UsageError, match="names no files"):
        outside.hdrvdp3("vdp", light, light)
    with pytest.raises(UsageError, match="cannot be run"):
        outside.hdrvdp3("/nowhere/vdp {pred} {ref}", light, light)
    with pytest.raises(HdrError, match="gave no score"):
        outside.hdrvdp3(f"{sys.executable} -c 0 {{pred}} {{ref}}", light, light)
    with pytest.raises(UsageError, match="program of its own"):
        outside.check(("hdrvdp3",), None)
