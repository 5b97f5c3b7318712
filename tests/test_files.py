"""The plan of a run: which file becomes which, and what is refused before any work; whole writes or none."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program import plan

from hdrcli import files
from hdrcli.errors import HdrError, ReadError, UsageError, WriteError
from hdrcli.files import STREAM, Job


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def names(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_output_lies_beside_its_input() -> None:
    touch("a/one.jpg")
    assert plan("a/one.jpg") == {"a/one.jpg": "a/one_hdr.exr"}


def test_named_file_needs_no_known_ending_and_may_be_missing() -> None:
    assert plan("missing.jpg", "odd.xyz") == {"missing.jpg": "missing_hdr.exr", "odd.xyz": "odd_hdr.exr"}


def test_out_file_and_out_folder() -> None:
    touch("one.jpg")
    assert plan("one.jpg", out="new/result.exr") == {"one.jpg": "new/result.exr"}
    assert plan("one.jpg", out="new") == {"one.jpg": "new/one.exr"}
    assert plan("one.jpg", out="v1.exr/") == {"one.jpg": "v1.exr/one.exr"}
    assert plan("one.jpg", out="photos.2024") == {"one.jpg": "photos.2024/one.exr"}


def test_out_that_is_a_folder_with_the_ending_of_a_file() -> None:
    touch("one.jpg", "odd.exr/x")
    assert plan("one.jpg", out="odd.exr") == {"one.jpg": "odd.exr/one.exr"}


def test_folder_gives_what_is_accepted_in_order_without_hidden_files_and_earlier_outputs() -> None:
    touch(
        "in/b.jpg", "in/a.PNG", "in/.hidden.jpg", "in/text.txt", "in/a_hdr.jpg", "in/a_hdr_preview.png", "in/sub/c.jpg"
    )
    assert plan("in") == {"in/a.PNG": "in/a_hdr.exr", "in/b.jpg": "in/b_hdr.exr"}


def test_tree_is_kept_under_the_output_folder() -> None:
    touch("in/a.jpg", "in/deep/er/a.jpg", "in/.git/a.jpg")
    assert plan("in", out="out", recursive=True) == {"in/a.jpg": "out/a.exr", "in/deep/er/a.jpg": "out/deep/er/a.exr"}


def test_output_folder_that_is_the_input_folder_keeps_the_suffix() -> None:
    touch("in/a.jpg")
    assert plan("in", out="in") == {"in/a.jpg": "in/a_hdr.exr"}


def test_patterns_that_a_shell_left_alone() -> None:
    touch("in/a.jpg", "in/b.jpg", "in/c[1].jpg")
    assert list(plan("in/?.jpg")) == ["in/a.jpg", "in/b.jpg"]
    assert list(plan("in/c[1].jpg")) == ["in/c[1].jpg"], "a file of that very name is not a pattern"
    assert list(plan(str(Path("in").resolve() / "a*.jpg"))) == [(Path("in").resolve() / "a.jpg").as_posix()]


def test_the_same_file_twice_is_one_job() -> None:
    touch("in/a.jpg")
    assert plan("in/a.jpg", "in", "in/a.jpg") == {"in/a.jpg": "in/a_hdr.exr"}


def test_streams() -> None:
    assert plan("-") == {"-": "-"}
    assert plan("-", out="x.exr") == {"-": "x.exr"}
    assert plan("-", out="folder") == {"-": "folder/stdin.exr"}
    assert plan("a.jpg", out="-") == {"a.jpg": "-"}


@pytest.mark.parametrize(
    ("inputs", "out", "words"),
    [
        (["a/x.jpg", "a/x.png"], None, "both be written to"),
        (["a/x.jpg", "b/x.jpg"], "out", "both be written to"),
        (["a/x.jpg", "a/y.jpg"], "one.exr", "do not fit into one output"),
        (["a/x.jpg", "a/y.jpg"], "-", "do not fit into one output"),
        (["a/x.jpg"], "a/x.jpg", "is one of the inputs"),
        (["a/x.jpg"], "a/../a/x.jpg", "is one of the inputs"),
        (["empty"], None, "nothing to work on"),
        ([], None, "nothing to work on"),
        (["a/x.jpg"], "a/notes.txt", "cannot be written"),
    ],
)
def test_refused_before_any_work(inputs: list[str], out: str | None, words: str) -> None:
    touch("a/x.jpg", "a/x.png", "a/y.jpg", "b/x.jpg", "a/notes.txt", "empty/sub/z.jpg")
    with pytest.raises(UsageError, match=words):
        plan(*inputs, out=out)


def test_input_reached_through_a_link_is_not_overwritten() -> None:
    touch("a/x.jpg")
    Path("link").symlink_to("a", target_is_directory=True)
    with pytest.raises(UsageError, match="is one of the inputs"):
        plan("a/x.jpg", out="link/x.jpg")


@given(st.lists(st.from_regex(r"[a-c]{1,2}/[a-c]{1,2}", fullmatch=True), min_size=1, max_size=8))
def test_no_plan_writes_one_file_twice_or_an_input(names: list[str]) -> None:
    inputs = [f"{name}.jpg" for name in names]
    try:
        jobs = plan(*inputs, out="a")
    except UsageError:
        return
    assert len(set(jobs.values())) == len(set(inputs)), "every input has an output of its own"
    assert not set(jobs) & set(jobs.values())


def test_list_of_paths() -> None:
    assert files.read_list(b"a b.jpg\n\n c.jpg\r\n") == ["a b.jpg", " c.jpg"]


def test_write_is_seen_only_when_whole() -> None:
    target = Path("new/x.exr")
    with files.atomic_write(target) as part:
        assert part.parent == target.parent
        assert part.suffix == ".exr"
        part.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert names("new") == ["x.exr"]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), HdrError("bad")])
def test_failed_write_leaves_the_old_file_and_nothing_else(error: BaseException) -> None:
    target = Path("x.exr")
    target.write_bytes(b"old")
    with pytest.raises(type(error)), files.atomic_write(target) as part:
        part.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert names() == ["x.exr"]


def test_place_that_cannot_be_written_is_an_error_for_people() -> None:
    touch("file")
    with pytest.raises(WriteError, match=r"cannot write file.x\.exr"), files.atomic_write(Path("file/x.exr")) as part:
        part.write_bytes(b"")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks that end with their process")
def test_parts_of_killed_runs_are_swept_and_those_in_use_kept() -> None:
    touch(".hdrcli-part-killed.exr", "old.exr")
    with files.atomic_write(Path("new.exr")) as part:
        part.write_bytes(b"half")
        files.sweep([Path(), Path("missing")])
        assert names() == [part.name, "old.exr"]
    files.sweep([Path()])
    assert names() == ["new.exr", "old.exr"]


def test_a_folder_with_the_name_of_an_output_is_an_error_for_people() -> None:
    touch("x.exr/inside")
    with pytest.raises(WriteError, match=r"x\.exr: it is a folder"), files.atomic_write(Path("x.exr")):
        pytest.fail("there was nothing to write to")


ODD_NAMES = ["a b.jpg", "näht ☂.jpg", "a\nb.jpg", "a\r.jpg ", "\u2028.jpg", os.fsdecode(b"\xff\xfe.jpg"), "'$(x).jpg"]


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("names", [ODD_NAMES, ODD_NAMES[:2], ["a\n.jpg"], [" .jpg"], []])
def test_lists_give_back_every_name(names: list[str], null: bool) -> None:
    files.write_list(Path("list"), names, null=null)
    assert files.read_list(Path("list").read_bytes(), null=null) == names
    assert files.read_list(Path("list").read_bytes()) == names, "zero bytes are seen without being told"


def test_lists_from_other_programs() -> None:
    assert files.read_list(b"\xef\xbb\xbfa.jpg\r\nb.jpg\r\n") == ["a.jpg", "b.jpg"]
    assert files.read_list(b"a\nb", null=True) == ["a\nb"]


def test_a_listed_job_goes_to_the_same_place_again() -> None:
    touch("in/deep/a.jpg", "in/b.jpg", "in/deep/er/c.jpg")
    settings = {"out": "out", "recursive": True, "suffix": "_hdr", "extension": ".exr", "accepts": lambda path: True}
    jobs = files.plan(["in"], **settings)
    assert files.plan([files.listed(job) for job in jobs], **settings) == jobs


def test_existing_says_what_is_wrong() -> None:
    touch("folder/x.jpg")
    assert files.existing(Path("folder/x.jpg")) == Path("folder/x.jpg")
    with pytest.raises(ReadError, match="is a folder"):
        files.existing(Path("folder"))
    with pytest.raises(ReadError, match="does not exist"):
        files.existing(Path("nothing"))
    Path("link").symlink_to("gone")
    with pytest.raises(ReadError, match="link to gone, does not exist"):
        files.existing(Path("link"))
    with pytest.raises(ReadError, match="cannot be read"):
        files.existing(Path("x" * 5000))


def test_stream_is_the_dash() -> None:
    assert Job(STREAM, STREAM).source == Path("-")
