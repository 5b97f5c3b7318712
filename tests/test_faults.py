"""Batches in which everything goes wrong: each fault is one file's, is said in a sentence, and the rest is written."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fuzzing
import killing
import numpy as np
import pytest
import torch
from picture_files import chunk, tiff
from program import write_mosaic, write_picture
from standins import Square, known_model
from torch import Tensor

from hdrcli import codecs, files, infer
from hdrcli.errors import OutOfMemoryError, WeightsError, WriteError
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.nets._torch_checkpoint import read_state_dict
from hdrcli.network import Context, Network
from hdrcli.tasks import expand
from hdrcli.tiling import Tiling

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.skipif(sys.platform == "win32", reason="links, signals and modes of Unix"),
]

SIZE = (24, 40)


def picture(name: str, format: str) -> Path:
    ramp = np.linspace(0, 1, SIZE[0] * SIZE[1] * 3, dtype=np.float32).reshape(*SIZE, 3)
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    linear = codecs.FORMATS[format].holds == Transfer.LINEAR
    codecs.write(Image(ramp, Transfer.LINEAR if linear else Transfer.SRGB), path, format)
    return path


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def scrambled(path: Path) -> None:
    """The header as it is, and noise from there on."""
    data = bytearray(path.read_bytes())
    start = min(len(data) // 3, 400)
    data[start:] = np.random.default_rng(0).bytes(len(data) - start)
    path.write_bytes(data)


def bomb_png(path: Path) -> None:
    """A PNG of 40000 x 40000 pixels in 200 kB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0))
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def bomb_tiff(path: Path) -> None:
    data = bytearray(tiff(np.zeros((4, 4, 3), np.uint16), 2))
    for tag in (256, 257):
        place = data.find(struct.pack("<HH", tag, 4))
        struct.pack_into("<I", data, place + 8, 60000)
    path.write_bytes(data)


def bomb_radiance(path: Path) -> None:
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 100000 +X 100000\n" + bytes(100))


def bomb_exr(path: Path) -> None:
    data = bytearray(picture(str(path), "exr").read_bytes())
    place = data.find(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    struct.pack_into("<iiii", data, place, 0, 0, 99_999, 99_999)
    path.write_bytes(data)


def bomb_dng(path: Path) -> None:
    write_mosaic(str(path))
    data = bytearray(path.read_bytes())
    for tag in (256, 257):
        place = data.find(struct.pack("<HH", tag, 4))
        struct.pack_into("<I", data, place + 8, 50000)
    path.write_bytes(data)


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "empty.jpg": lambda path: path.touch(),
    "text.jpg": lambda path: path.write_text("not a picture"),
    "half_jpg.jpg": lambda path: half(picture(str(path), "jpg")),
    "half_png.png": lambda path: half(picture(str(path), "png")),
    "half_tif.tif": lambda path: half(picture(str(path), "tif")),
    "half_webp.webp": lambda path: half(picture(str(path), "webp")),
    "half_avif.avif": lambda path: half(picture(str(path), "avif")),
    "half_jxl.jxl": lambda path: half(picture(str(path), "jxl")),
    "half_exr.exr": lambda path: half(picture(str(path), "exr")),
    "half_hdr.hdr": lambda path: half(picture(str(path), "hdr")),
    "scrambled_png.png": lambda path: scrambled(picture(str(path), "png")),
    "scrambled_tif.tif": lambda path: scrambled(picture(str(path), "tif")),
    "scrambled_exr.exr": lambda path: scrambled(picture(str(path), "exr")),
    "raw_as.jpg": lambda path: shutil.move(write_mosaic("x.dng"), path),
    "exr_as.png": lambda path: shutil.move(picture("x.exr", "exr"), path),
    "bomb_png.png": bomb_png,
    "bomb_tif.tif": bomb_tiff,
    "bomb_hdr.hdr": bomb_radiance,
    "bomb_exr.exr": bomb_exr,
    "gone.jpg": lambda path: path.symlink_to("nowhere"),
    "itself.jpg": lambda path: path.symlink_to(path.name),
    "folder.jpg": lambda path: path.mkdir(),
    "x" * 300 + ".jpg": lambda path: None,
    "missing.jpg": lambda path: None,
}
BAD_RAW_FILES: dict[str, Callable[[Path], object]] = {
    "empty.dng": lambda path: path.touch(),
    "half_dng.dng": lambda path: half(write_mosaic(str(path))),
    "head.dng": lambda path: path.write_bytes(write_mosaic("x.dng").read_bytes()[:200]),
    "noise.cr2": lambda path: path.write_bytes(b"II*\0\x10\0\0\0CR\x02\0" + np.random.default_rng(1).bytes(5000)),
    "jpeg_as.nef": lambda path: shutil.move(picture("x.jpg", "jpg"), path),
    "bomb_dng.dng": bomb_dng,
}


@pytest.mark.parametrize(
    ("command", "good", "bad"),
    [("expand", "png", BAD_FILES), ("develop", "dng", BAD_RAW_FILES)],
    ids=["expand", "develop"],
)
def test_every_bad_file_fails_alone(
    hdr: Any, command: str, good: str, bad: dict[str, Callable[[Path], object]]
) -> None:
    names = []
    for number, (name, make) in enumerate(bad.items()):
        make(Path(name))
        whole = f"good{number}.{good}"
        (write_mosaic if command == "develop" else write_picture)(whole)
        names += [name, whole]
    wanted = [name for name in names if name != "folder.jpg"]  # a folder that is named is searched
    done = hdr(command, *wanted, "-o", "out", "--json", "--list-failed", "failed.txt")
    assert done.code == 1
    assert "Traceback" not in done.err
    status = {record["source"]: record for record in done.records}
    assert {name for name in wanted if status[name]["status"] == "failed"} == set(bad) & set(wanted)
    for name in set(bad) & set(wanted):
        assert Path(name).stem[:20] in status[name]["error"], "the sentence names the file"
        assert status[name]["hint"], status[name]
        assert "crashed" not in status[name]["error"], "readers see through all of these"
        if "bomb" in name:
            assert "more than the 1,000,000,000 that are read" in status[name]["error"]
    outputs = sorted(path.stem for path in Path("out").iterdir())
    assert outputs == sorted(Path(name).stem for name in names if name.startswith("good"))
    assert Path("failed.txt").read_text().splitlines() == [name for name in wanted if name in bad]


CRASHES = """
import ctypes, os, time
from hdrcli import codecs, files
from hdrcli.errors import WriteError
real = codecs.read
def read(source, *, name=""):
    kind = name.partition("_")[0]
    if kind == "segfault": ctypes.string_at(0)
    if kind == "abort": os.abort()
    if kind == "bug": [][0]
    if kind == "killed": os.kill(os.getpid(), 9)
    if kind == "exit": os._exit(0)
    return real(source, name=name)
codecs.read = read
"""


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoder processes that go down over files of certain names."""
    folder = tmp_path / "python"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CRASHES)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.usefixtures("crashing")
def test_a_decoder_that_crashes_takes_one_file(hdr: Any) -> None:
    kinds = ["segfault", "abort", "bug", "killed", "exit"]
    for number, kind in enumerate(kinds * 2):
        write_picture(f"in/{kind}_{number}.png")
        write_picture(f"in/good_{number}.png")
    done = hdr("expand", "in", "-o", "out", "--json")
    assert done.code == 1
    failed = {record["source"]: record["error"] for record in done.records if record["status"] == "failed"}
    assert sorted(failed) == sorted(f"in/{kind}_{number}.png" for number, kind in enumerate(kinds * 2))
    assert "segfault_0.png: its decoder crashed (SIGSEGV" in failed["in/segfault_0.png"]
    assert "its decoder crashed (exit code 1: IndexError: list index out of range)" in failed["in/bug_2.png"]
    assert len(list(Path("out").iterdir())) == 10


@pytest.mark.usefixtures("crashing")
def test_a_decoder_that_crashes_takes_one_file_of_a_report_or_an_evaluation(hdr: Any) -> None:
    names = [f"in/{kind}.png" for kind in ("segfault_1", "good_1", "killed_1", "good_2")]
    for name in names:
        write_picture(name, size=(64, 64))
    found = hdr("inspect", "--json", *names)
    assert found.code == 1
    assert [record["source"] for record in found.records] == names
    assert ["crashed" in record["error"] for record in found.records] == [True, False, True, False]
    assert [record["width"] for record in found.records] == [0, 64, 0, 64]
    scored = hdr("eval", "in", "in", "--protocol", "display", "--json", "-q")
    assert scored.code == 1
    (result,) = scored.records
    assert {one["image"]: "crashed" in one["error"] for one in result["failed"]} == dict.fromkeys(
        ("killed_1", "segfault_1"), True
    )
    assert {row["image"] for row in result["images"]} == {"good_1", "good_2"}


def test_the_limit_of_pixels_can_be_set(hdr: Any) -> None:
    write_picture("a.png")
    write_mosaic("a.dng")
    for command, name in (("expand", "a.png"), ("develop", "a.dng")):
        assert hdr(command, name, "-q", "--max-pixels", "1000").code == 1
        assert hdr(command, name, "-q", "--max-pixels", "4000").code == 0


@pytest.mark.parametrize(("options", "failures"), [(["--fail-fast"], 1), (["--max-failures", "2"], 2)])
def test_a_run_stops_after_so_many_failures(hdr: Any, options: list[str], failures: int) -> None:
    for number in range(20):
        Path(f"in/{number:02}_bad.png").parent.mkdir(exist_ok=True)
        Path(f"in/{number:02}_bad.png").touch()
        write_picture(f"in/{number:02}_good.png")
    done = hdr("expand", "in", "-o", "out", "--json", "--jobs", "2", *options)
    assert done.code == 1
    failed = [record for record in done.records if record["status"] == "failed"]
    assert failures <= len(failed) <= failures + 1, "no more than were under way"
    assert "stopped: " in done.err
    assert f"{40 - len(done.records)} left for another run" in done.err


ODD_NAMES = [
    "a b.png",
    "näht ☂.png",
    "line\nend.png",
    " leading.png",
    "'$(x)\".png",
    "-dash.png",
    "@at.png",
    "100%.png",
]
ODD_NAMES += [os.fsdecode(b"\xff\xfe.png"), "\x1b[31m.png", "\u2028.png", "[ab]?.png"]


def test_odd_names_survive_and_a_retry_leads_to_the_same_outputs(hdr: Any) -> None:
    for name in ODD_NAMES:
        write_picture(f"in/deep/{name}")
        Path(f"in/deep/bad {name}").write_bytes(b"")
    done = hdr("expand", "in", "-r", "-o", "out", "--json", "--list-failed", "failed")
    assert done.code == 1
    written = [record["target"] for record in done.records if record["status"] == "written"]
    assert sorted(written) == sorted(str(Path("out/deep", name).with_suffix(".exr")) for name in ODD_NAMES)
    assert all(Path(target).is_file() for target in written)
    for name in ODD_NAMES:
        write_picture(f"in/deep/bad {name}")
    again = hdr("expand", "@failed", "-o", "out", "--json", "--list-failed", "failed")
    assert again.code == 0, again.err
    assert sorted(r["target"] for r in again.records) == sorted(
        str(Path("out/deep", f"bad {name}").with_suffix(".exr")) for name in ODD_NAMES
    )
    assert Path("failed").read_bytes() == b""
    listed = b"\0".join(os.fsencode(f"in/deep/{name}") for name in ODD_NAMES) + b"\0"
    from_find = hdr("expand", "-0", "--files-from", "-", "-o", "flat", stdin=listed)
    assert from_find.code == 0, from_find.err
    assert len(list(Path("flat").iterdir())) == len(ODD_NAMES)


def test_an_unreadable_file_fails_alone(hdr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture("good.png")
    write_picture("secret.png").chmod(0)
    if os.access("secret.png", os.R_OK):  # who is root reads all; but nobody reads this part of another's memory
        Path("secret.png").unlink()
        Path("secret.png").symlink_to("/proc/self/mem")
    done = hdr("expand", "secret.png", "good.png", "-o", "out")
    assert done.code == 1
    assert "secret.png" in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in Path("out").iterdir()] == ["good.exr"]


def test_an_output_name_taken_by_a_folder(hdr: Any) -> None:
    write_picture("a.png")
    write_picture("b.png")
    Path("out/a.exr").mkdir(parents=True)
    done = hdr("expand", "a.png", "b.png", "-o", "out")
    assert done.code == 1
    assert "failed: a.png: cannot write out/a.exr: it is a folder" in done.err
    assert Path("out/b.exr").is_file()


def test_an_output_folder_that_cannot_be_written(hdr: Any) -> None:
    write_picture("a.png")
    Path("file").touch()
    done = hdr("expand", "a.png", "-o", "file/out")
    assert done.code == 1
    assert "cannot write file/out/a.exr" in done.err
    done = hdr("expand", "a.png", "-o", "/proc/self/out")  # read-only for root, too
    assert done.code == 1
    assert "cannot write /proc/self/out/a.exr" in done.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


WRITTEN = ["exr", "hdr", "jpg", "avif", "jxl", "png", "tif", "webp"]


def write_everything(folder: Path) -> list[str]:
    """A picture of noise in every format; returns what is said of those that could not be written."""
    noise = np.random.default_rng(0).random((200, 200, 3), np.float32)
    said = []
    for format in WRITTEN:
        image = Image(noise, codecs.FORMATS[format].holds)
        try:
            with files.atomic_write(folder / f"a.{format}") as part:
                codecs.write(image, part, format)
        except WriteError as error:
            said.append(error.message)
    return said


def test_a_full_disk(hdr: Any, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(248 << 10))
    noise = np.random.default_rng(1).random((100, 100, 3), np.float32)
    codecs.write(Image(noise, Transfer.SRGB), Path("a.png"), "png")
    done = hdr("expand", "a.png", "-o", str(small_disk), "-f", "exr", "-f", "uhdr")
    assert done.code == 1
    assert done.err.count("failed: a.png: ") == 2
    assert done.err.count("No space left") == 2
    said = write_everything(small_disk)
    assert len(said) == len(WRITTEN), said
    assert all("No space left" in message for message in said), said
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_files_that_may_not_grow() -> None:
    """As a full disk, where none can be mounted."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        said = write_everything(Path("out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(said) == len(WRITTEN), said
    assert list(Path("out").iterdir()) == []


class Hungry(Network):
    """Squares numbers, and needs more memory than there is for tiles of more than `most` pixels."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.tiling = Tiling(multiple_of=8)
        self.most = most

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        if tile.shape[2] * tile.shape[3] > self.most:
            torch.empty(1 << 60)
        return tile**2


def test_too_little_memory_of_the_cpu_leads_to_smaller_tiles() -> None:
    planes = np.random.default_rng(0).random((3, 300, 280), np.float32)
    result = infer.run(Hungry(100 * 100), planes, Compute(device="cpu", precision="fp32"))
    np.testing.assert_allclose(result.pixels, np.moveaxis(planes, 0, 2) ** 2)
    assert result.tiles >= 9
    with pytest.raises(OutOfMemoryError, match="even in the smallest tiles"):
        infer.run(Hungry(0), planes, Compute(device="cpu", precision="fp32"))


def test_a_picture_too_large_for_memory_fails_alone(hdr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = expand.expand_image

    def hungry(model: Any, image: Image, **settings: Any) -> Any:
        if image.width == 80:
            torch.empty(1 << 60)
        return real(model, image, **settings)

    monkeypatch.setattr(expand, "expand_image", hungry)
    for name, width in (("a", 64), ("large", 80), ("z", 64)):
        write_picture(f"in/{name}.png", size=(40, width))
    done = hdr("expand", "in", "-o", "out")
    assert done.code == 1
    assert "in/large.png: there is not enough memory for this picture (use fewer --jobs)" in done.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.exr", "z.exr"]


def test_too_little_memory_of_the_gpu_is_one_files_matter(hdr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA says it: first the tiles that share a pass become fewer, then smaller, then the file fails alone."""
    monkeypatch.setattr("hdrcli.tasks.common.model_for", lambda task, model: known_model(task))
    for name, size in (("a", (64, 64)), ("large", (300, 280)), ("z", (64, 64))):
        write_picture(f"in/{name}.png", size=size)
    codecs.write(Image(np.full((80, 80, 3), 0.5, np.float32), Transfer.SRGB), Path("in/hopeless.png"), "png")
    command = ["expand", "in", "--json", "--tile", "150", "--batch", "4", "--precision", "fp32", "-o"]
    assert hdr(*command, "plain").code == 0
    real, tried = Square.forward, []

    def greedy(self: Square, tile: Tensor, context: Context) -> Tensor:
        tried.append((len(tile), *tile.shape[2:]))
        if tile.shape[0] * tile.shape[2] * tile.shape[3] > 100 * 100 or (tile == 128 / 255).all():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, tile, context)

    monkeypatch.setattr(Square, "forward", greedy)
    done = hdr(*command, "out", "--jobs", "1")
    assert done.code == 1
    assert [record["status"] for record in done.records] == ["written", "failed", "written", "written"]
    assert "even in the smallest tiles" in done.records[1]["error"]
    assert [record["tiles"] for record in done.records] == [1, None, 16, 1]
    of_large = [number for number, height, width in tried if height * width > 80 * 80][:3]
    assert of_large == [4, 2, 1], "tiles that share a pass are fewer each time before they are smaller"
    for name in ("a", "large", "z"):
        assert Path(f"out/{name}.exr").read_bytes() == Path(f"plain/{name}.exr").read_bytes()
    assert not Path("out/hopeless.exr").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="batches are forked")
def test_a_killed_batch_loses_and_redoes_nothing() -> None:
    killing.check(2)


def test_damaged_files_of_every_kind_are_read_or_refused() -> None:
    assert fuzzing.check(300, number=1)["refused"] > 100


def test_two_runs_on_one_folder_do_not_fight(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        write_picture(f"in/{number}.png", size=(100, 120))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "hdrcli", "expand", "in", "-q", "--json", "--jobs", "1", "-o"]
    subprocess.run([*command, "alone"], check=True, capture_output=True)
    runs = [subprocess.Popen([*command, "out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for run in runs:
        out, err = run.communicate()
        assert run.returncode == 0, err
        assert len(out.splitlines()) == 6
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == {
        path.name: path.read_bytes() for path in Path("alone").iterdir()
    }


def test_ctrl_c_stops_within_the_tile_and_tells_what_is_finished(hdr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tiles = Square.forward, []

    def slow(self: Square, tile: Tensor, context: Context) -> Tensor:
        tiles.append(tile.shape)
        if len(tiles) == 6:  # the second picture's
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        return real(self, tile, context)

    monkeypatch.setattr(Square, "forward", slow)
    monkeypatch.setattr("hdrcli.tasks.common.model_for", lambda task, model: known_model(task))
    for number in range(6):
        write_picture(f"in/{number}.png", size=(64 * 4, 64))
    done = hdr("expand", "in", "-o", "out", "--json", "--tile", "64", "--jobs", "2", "--precision", "fp32")
    assert done.code == 130
    assert len(tiles) <= 8, "it went on with the picture's other tiles"
    assert [record["status"] for record in done.records] == ["written"]
    assert "interrupted: 1 written in" in done.err
    assert "; 5 left for another run" in done.err
    assert [str(path) for path in Path("out").iterdir()] == [record["target"] for record in done.records]


def test_a_checkpoint_that_would_inflate_is_refused() -> None:
    torch.save({"a": torch.zeros(100_000)}, "plain.pth")
    assert read_state_dict(Path("plain.pth"))["a"].numel() == 100_000
    with zipfile.ZipFile("plain.pth") as plain, zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert Path("bomb.pth").stat().st_size < 10_000
    with pytest.raises(WeightsError, match="not a torch weight file that is safe to read"):
        read_state_dict(Path("bomb.pth"))
