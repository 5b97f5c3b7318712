"""The command line as its users meet it: words, exit codes, what goes to which stream, what is left on disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from program import write_mosaic, write_picture

from hdrcli import codecs, files
from hdrcli.cli import develop as develop_command
from hdrcli.cli import expand as expand_command
from hdrcli.image import Transfer
from hdrcli.tonemap import OPERATORS

KEYS = ["source", "target", "status", "seconds", "width", "height"]
KEYS += ["model", "device", "precision", "tiles", "notes", "error", "hint"]


pytestmark = pytest.mark.usefixtures("here")


def test_version_and_help(hdr: Any) -> None:
    assert hdr("--version").out.startswith(b"hdr ")
    text = hdr("--help").out.decode()
    for command in ("develop", "expand", "inspect", "models", "demo"):
        assert command in text


def test_expand_beside_the_input(hdr: Any) -> None:
    write_picture("a.png")
    done = hdr("expand", "a.png")
    assert done.code == 0, done.err
    assert done.out == b""
    assert "1 written in" in done.err
    assert "(lumen on " in done.err
    result = codecs.read(Path("a_hdr.exr"))
    assert (result.width, result.height, result.transfer) == (56, 40, Transfer.LINEAR)
    assert result.meta.extra["hdr:model"] == "lumen"


def test_json_has_the_promised_words_and_nothing_else_is_on_stdout(hdr: Any) -> None:
    write_picture("a.png", clipped=False)
    done = hdr("expand", "a.png", "nothere.png", "--json")
    assert done.code == 1
    good, bad = done.records
    assert list(good) == list(bad) == KEYS
    assert (good["source"], good["target"], good["status"]) == ("a.png", "a_hdr.exr", "written")
    assert (good["width"], good["height"], good["model"], good["tiles"]) == (56, 40, "lumen", 1)
    assert "nothing to reconstruct" in good["notes"][0]
    assert (bad["status"], bad["width"], bad["tiles"]) == ("failed", None, None)
    assert "does not exist" in bad["error"]
    assert bad["hint"]


def test_finished_outputs_are_kept_unless_overwritten(hdr: Any) -> None:
    write_picture("a.png")
    hdr("expand", "a.png")
    before = Path("a_hdr.exr").stat().st_mtime_ns
    again = hdr("expand", "a.png", "--json")
    assert (again.code, again.records[0]["status"]) == (0, "skipped")
    assert Path("a_hdr.exr").stat().st_mtime_ns == before
    assert "1 skipped" in again.err
    assert hdr("expand", "a.png", "--overwrite", "--json").records[0]["status"] == "written"


def test_picture_through_the_pipe(hdr: Any) -> None:
    data = write_picture("a.png").read_bytes()
    done = hdr("expand", "--model", "lumen", "--gamma", "1.2", stdin=data)
    assert done.code == 0, done.err
    assert codecs.read(done.out).transfer == Transfer.LINEAR
    assert hdr("expand", "-", "-o", "named.hdr", stdin=data).code == 0
    assert codecs.read(Path("named.hdr")).width == 56
    assert files.STREAM.name not in os.listdir()  # noqa: PTH208


def test_pipe_of_a_mosaic(hdr: Any) -> None:
    data = write_mosaic("a.dng").read_bytes()
    done = hdr("develop", stdin=data)
    assert done.code == 0, done.err
    assert codecs.read(done.out).width == 64
    assert done.out.startswith(b"\xff\xd8")


def test_no_input_on_a_terminal_is_wrong_usage(hdr: Any) -> None:
    done = hdr("expand", terminal=True)
    assert done.code == 2
    assert "there is no input" in done.err
    assert "pipe a picture in" in done.err


def test_one_bad_file_does_not_stop_the_rest(hdr: Any) -> None:
    write_picture("in/a.png")
    write_picture("in/c.png")
    Path("in/b.png").write_bytes(b"no picture")
    done = hdr("expand", "in", "-o", "out", "--json")
    assert done.code == 1
    assert [record["status"] for record in done.records] == ["written", "failed", "written"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.exr", "c.exr"]
    assert "2 written, 1 failed" in done.err


def test_tree_and_list_of_files(hdr: Any) -> None:
    write_picture("in/a.png")
    write_picture("in/deep/b.png")
    assert hdr("expand", "in", "-r", "-o", "out").code == 0
    assert sorted(str(path) for path in Path("out").rglob("*.exr")) == ["out/a.exr", "out/deep/b.exr"]
    done = hdr("expand", "--files-from", "-", "-o", "listed", stdin=b"in/a.png\n\nin/deep/b.png\n")
    assert done.code == 0, done.err
    assert len(list(Path("listed").iterdir())) == 2
    assert hdr("expand", "--files-from", "-", "-", stdin=b"in/a.png").code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["expand", "a.png", "--gamma", "0"], "gamma must be above 0"),
        (["expand", "a.png", "--ev", "nan"], "ev must be a finite number"),
        (["expand", "a.png", "--format", "pdf"], "formats: exr"),
        (["expand", "a.png", "-o", "x.webp"], "does not end like a exr file"),
        (["expand", "a.png", "-o", "x.exr", "--format", "hdr"], "does not end like a hdr file"),
        (["expand", "a.png", "-o", "a.png"], "is one of the inputs"),
        (["expand", "a.png", "-o", "-", "--json"], "standard output cannot take both"),
        (["expand", "a.png", "-o", "-", "--preview"], "preview"),
        (["expand", "a.png", "-o", "-", "-f", "exr", "-f", "hdr"], "not several formats"),
        (["expand", "a.png", "--white-nits", "0"], "white_nits must be above 0"),
        (["expand", "a.png", "--device", "tpu"], "there is no device"),
        (["expand", "a.png", "--model", "lumenraw"], "for develop, not for expand"),
        (["expand", "a.png", "--tile", "10"], "tile"),
        (["expand", "a.png", "--compression", "rar"], "compression"),
        (["expand", "."], "nothing to work on"),
        (["develop", "a.dng", "--quality", "101"], "quality"),
        (["develop", "a.dng", "--look", "sepia"], "look"),
        (["develop", "a.dng", "--format", "exr"], "formats: jpg"),
        (["inspect"], "FILE"),
        (["nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_ends_with_2_and_says_why(hdr: Any, arguments: list[str], words: str) -> None:
    if arguments != ["expand", "."]:
        write_picture("a.png")
    done = hdr(*arguments)
    assert done.code == 2, done.err
    assert words in done.err
    assert done.out == b""
    assert not list(Path().glob("*.exr"))


def test_unknown_model_names_the_known_ones(hdr: Any) -> None:
    write_picture("a.png")
    done = hdr("expand", "a.png", "--model", "lumem")
    assert done.code == 1
    assert "did you mean lumen" in done.err


def test_quiet_and_verbose(hdr: Any) -> None:
    write_picture("a.png", clipped=False)
    assert hdr("expand", "a.png", "-q").err == ""
    done = hdr("expand", "a.png", "-v", "--overwrite")
    assert "written: a.png -> a_hdr.exr" in done.err
    assert "fp32" in done.err.splitlines()[0]
    failed = hdr("expand", "nothere.png", "-q")
    assert failed.err.startswith("failed: nothere.png does not exist")


def test_preview_is_viewable_and_its_exposure_is_stated(hdr: Any) -> None:
    write_picture("a.png")
    done = hdr("expand", "a.png", "--preview", "--json")
    assert "EV" in done.records[0]["notes"][0]
    preview = codecs.read(Path("a_hdr_preview.png"))
    assert (preview.width, preview.transfer) == (56, Transfer.SRGB)
    assert 0.2 < preview.pixels.mean() < 0.8
    assert hdr("expand", ".", "--json").records[0]["status"] == "skipped", "outputs and previews are no inputs"


def test_exr_options_and_no_metadata(hdr: Any) -> None:
    write_picture("a.png", size=(200, 300))
    sizes = {}
    for name, arguments in {"half": [], "float": ["--float"], "none": ["--compression", "none"]}.items():
        assert hdr("expand", "a.png", "-o", f"{name}.exr", *arguments).code == 0
        sizes[name] = Path(f"{name}.exr").stat().st_size
    assert sizes["half"] < sizes["float"]
    assert sizes["half"] < sizes["none"]
    hdr("expand", "a.png", "-o", "bare.exr", "--no-metadata")
    assert not codecs.read(Path("bare.exr")).meta.extra


def test_several_formats_in_one_run(hdr: Any) -> None:
    write_picture("a.png")
    codecs.write(codecs.read(Path("a.png")), Path("a.jpg"), "jpg")
    done = hdr("expand", "a.jpg", "-f", "exr", "-f", "uhdr", "--format", "exr", "--white-nits", "100", "--json")
    assert done.code == 0, done.err
    assert [(r["target"], r["status"]) for r in done.records] == [("a_hdr.exr", "written"), ("a_hdr.jpg", "written")]
    assert codecs.read(Path("a_hdr.exr")).white == 100
    shown = codecs.read(Path("a_hdr.jpg"))
    np.testing.assert_array_equal(shown.pixels, codecs.read(Path("a.jpg")).pixels)
    assert (shown.meta.extra["hdr:model"], shown.meta.extra["hdr:white_nits"]) == ("lumen", "100")
    Path("a_hdr.jpg").unlink()
    done = hdr("expand", "a.jpg", "-f", "exr", "-f", "uhdr", "--json")
    assert [record["status"] for record in done.records] == ["skipped", "written"]
    done = hdr("expand", "a.jpg", "-f", "exr", "-f", "uhdr", "--json")
    assert [record["status"] for record in done.records] == ["skipped", "skipped"]


def test_light_in_jpeg_xl_as_floats_or_in_pq(hdr: Any) -> None:
    write_picture("a.png")
    for name, arguments in {"half": [], "float": ["--float"], "pq": ["--pq"]}.items():
        assert hdr("expand", "a.png", "-o", f"{name}.jxl", *arguments).code == 0
    images = {name: codecs.read(Path(f"{name}.jxl")) for name in ("half", "float", "pq")}
    assert {name: image.meta.bits for name, image in images.items()} == {"half": 16, "float": 32, "pq": 16}
    assert (images["half"].white, images["pq"].white) == (None, 203)


def test_a_sequence_of_frames(hdr: Any) -> None:
    for number in (1, 2, 3):
        write_picture(f"clip/f_{number:03}.png")
    done = hdr("expand", "clip/f_%03d.png", "--sequence", "-o", "out", "--json")
    assert done.code == 0, done.err
    assert [Path(record["target"]).name for record in done.records] == ["f_001.exr", "f_002.exr", "f_003.exr"]
    assert hdr("expand", "clip", "--sequence", "-o", "again").code == 0
    for number in (1, 2):
        write_mosaic(f"raw/f_{number:03}.dng")
    done = hdr("develop", "raw/f_%03d.dng", "--sequence", "--wb", "auto", "-o", "developed")
    assert (done.code, len(list(Path("developed").iterdir()))) == (0, 2), done.err
    assert hdr("develop", "raw", "--sequence", "--look", "reinhard").code == 2
    assert hdr("expand", "-", "--sequence", "-o", "x.exr", stdin=Path("clip/f_001.png").read_bytes()).code == 2


def test_one_format_that_fails_does_not_stop_the_other(hdr: Any) -> None:
    write_picture("a.png")
    Path("out").mkdir()
    Path("out/a.hdr").mkdir()
    done = hdr("expand", "a.png", "-o", "out", "-f", "hdr", "-f", "exr", "--json", "--overwrite")
    assert done.code == 1
    assert [record["status"] for record in done.records] == ["failed", "written"]


@pytest.mark.parametrize("format_name", develop_command.FORMATS)
def test_develop_writes_every_format(hdr: Any, format_name: str) -> None:
    write_mosaic("in/a.dng")
    done = hdr("develop", "in", "--format", format_name, "--json", "--look", "reinhard", "--wb", "auto", "--ev", "1")
    assert done.code == 0, done.err
    record = done.records[0]
    assert (record["width"], record["height"], record["model"]) == (64, 48, "lumenraw")
    target = Path(record["target"])
    assert target.parent == Path("in")
    assert target.stem == "a_developed"
    assert codecs.read(target).width == 64


def test_develop_to_ultra_hdr_and_16_bits(hdr: Any) -> None:
    write_mosaic("a.dng")
    done = hdr("develop", "a.dng", "--hdr", "-f", "jpg", "-f", "webp")
    assert done.code == 0, done.err
    image = codecs.read(Path("a_developed.jpg"))
    assert any("Ultra HDR" in note for note in image.meta.notes)
    assert hdr("develop", "a.dng", "-o", "b.png", "--bits", "16").code == 0
    assert codecs.read(Path("b.png")).meta.bits == 16
    for arguments in (["--bits", "16"], ["--hdr", "-f", "png"], ["--bits", "16", "-f", "png", "-f", "jpg"]):
        assert hdr("develop", "a.dng", *arguments).code == 2


@pytest.mark.parametrize("format_name", expand_command.FORMATS)
def test_expand_writes_every_format(hdr: Any, format_name: str) -> None:
    write_picture("a.png")
    done = hdr("expand", "a.png", "-f", format_name, "-o", "out", "--json")
    assert done.code == 0, done.err
    target = Path(done.records[0]["target"])
    image = codecs.read(target)
    assert (image.width, image.height, image.meta.extra["hdr:model"]) == (56, 40, "lumen")
    assert hdr("inspect", str(target)).out.count(b"hdr:sha256") == 1


def test_preview_of_a_finished_picture_is_that_picture(hdr: Any) -> None:
    write_mosaic("a.dng")
    assert hdr("develop", "a.dng", "--format", "png", "--preview").code == 0
    finished, preview = (codecs.read(Path(f"a_developed{end}.png")).pixels for end in ("", "_preview"))
    np.testing.assert_array_equal(finished, preview)


def test_develop_takes_mosaics_in_png_when_told_so(hdr: Any) -> None:
    mosaic = np.random.default_rng(0).integers(60, 900, (448, 448), dtype=np.uint16)
    cv2.imwrite("7.png", mosaic)
    done = hdr("develop", "7.png", "--sensor", "native", "-o", "7.jpg")
    assert done.code == 0, done.err
    assert codecs.read(Path("7.jpg")).width == 448


def test_interruption_leaves_whole_files_and_ends_with_130(hdr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hdrcli.tasks import expand as task

    real, calls = task.expand_image, []

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    monkeypatch.setattr(task, "expand_image", interrupted)
    for name in "abcde":
        write_picture(f"in/{name}.png")
    done = hdr("expand", "in", "-o", "out")
    assert done.code == 130
    assert "interrupted: " in done.err
    for path in Path("out").iterdir():
        assert codecs.read(path).width == 56, f"{path} is not whole"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_signal_ends_a_real_run_with_130_and_whole_files(models: Path) -> None:
    for number in range(150):
        write_picture(f"in/{number}.png", size=(240, 320))
    command = [sys.executable, "-m", "hdrcli", "expand", "in", "-o", "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(Path().glob("out/*.exr")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.startswith("interrupted: ")
    left = list(Path("out").iterdir())
    assert 0 < len(left) < 150
    for path in left:
        assert codecs.read(path).width == 320, f"{path} is not whole"


def test_bug_is_loud(hdr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hdrcli.tasks import expand as task

    monkeypatch.setattr(task, "expand_image", lambda *arguments, **settings: 1 / 0)
    write_picture("a.png")
    with pytest.raises(ZeroDivisionError):
        hdr("expand", "a.png")


def test_inspect(hdr: Any) -> None:
    write_picture("a.png")
    write_mosaic("a.dng")
    hdr("expand", "a.png")
    done = hdr("inspect", "a.png", "a.dng", "a_hdr.exr", "nothere.jpg", "--json")
    assert done.code == 1
    png, dng, exr, missing = done.records
    assert (png["kind"], png["width"], png["height"], png["bits"]) == ("sRGB-encoded", 56, 40, 8)
    assert 0.1 < png["clipped"] < 0.25
    assert (dng["kind"], dng["width"], dng["bits"]) == ("Bayer mosaic", 64, 10)
    assert dng["details"]["black level"] == "64"
    assert (exr["kind"], exr["clipped"], exr["details"]["hdr:model"]) == ("linear light", None, "lumen")
    assert "does not exist" in missing["error"]
    people = hdr("inspect", "a.png")
    assert people.code == 0
    assert b"56 x 40" in people.out
    assert b"stops" in people.out


def test_looks_and_formats_of_the_command_line_are_those_of_the_tables() -> None:
    assert {look.value for look in develop_command.Look} == set(OPERATORS)
    for command, transfer in ((develop_command, Transfer.SRGB), (expand_command, Transfer.LINEAR)):
        for name in command.FORMATS:
            row = codecs.FORMATS["jpg" if name == codecs.ULTRA_HDR else name]
            assert row.writes
            assert row.holds == transfer or (row.light and transfer == Transfer.LINEAR)


def test_python_m_runs_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "hdrcli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hdr ")
