"""Kills a batch again and again and looks at what is left: run `python tests/killing.py 200` for 200 kills.

After every kill the folder holds whole outputs and temporary files alone; the next run removes the temporary files,
leaves finished outputs untouched and makes the missing ones, which are equal to the byte to those of a quiet run.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from standins import save_standin

from hdrcli import codecs
from hdrcli.cards import FOLDER_VARIABLE
from hdrcli.image import Image, Transfer

PICTURES = 8
PARTS = ".hdrcli-part-*"

# The decoders live in processes of their own; a batch that is forked from a loaded program begins within milliseconds.
_PROGRAM = """
import os, sys
from hdrcli.cli import main
import hdrcli.tasks.convert, hdrcli.tasks.expand, hdrcli.cluster, cv2, OpenEXR, PIL.JpegImagePlugin
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        sys.stderr = open("err.txt", "a", buffering=1)
        sys.argv = ["hdr", *line.split()]
        try:
            main.main()
            os._exit(0)
        except SystemExit as end:
            os._exit(end.code or 0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
_COMMAND = "expand in -o {} -f exr -f uhdr --preview --device cpu --precision fp32 -q --jobs 2"


class Runs:
    """Batches in a folder, one after another, each in a process of its own that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = os.environ | {FOLDER_VARIABLE: str(folder / "models"), "XDG_CACHE_HOME": str(folder / "cache")}
        environment |= {"OMP_NUM_THREADS": "1"}
        self.program = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, out: str) -> int:
        """Starts a batch that writes into `out`; returns its process."""
        assert self.program.stdin and self.program.stdout
        self.program.stdin.write(_COMMAND.format(out) + "\n")
        self.program.stdin.flush()
        return int(self.program.stdout.readline())

    def ended(self) -> int:
        """Waits for the batch; its exit code, negative for a signal."""
        assert self.program.stdout
        return int(self.program.stdout.readline())

    def close(self) -> None:
        assert self.program.stdin and self.program.stdout
        self.program.stdin.close()
        self.program.wait(timeout=60)
        self.program.stdout.close()


def prepare(folder: Path) -> None:
    """A tiny model and pictures of several sizes."""
    (folder / "models").mkdir()
    (folder / "in").mkdir()
    save_standin("lumen", folder / "models")
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = rng.random((60 + 20 * number, 200, 3), np.float32)
        codecs.write(Image(pixels, Transfer.SRGB), folder / "in" / f"{number:02}.jpg", "jpg")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.match(PARTS)}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """By name, what changes when a file is written again."""
    stats = {path.name: path.stat() for path in folder.iterdir() if not path.match(PARTS)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def check(kills: int, seed: int = 0) -> int:
    """Kills batches at so many random moments; AssertionError where something is left that should not be.

    Returns how many of the kills came while outputs were being written, some there and some not.
    """
    amid = 0
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="killing-") as place:
        folder = Path(place)
        prepare(folder)
        runs = Runs(folder)
        try:
            start = time.perf_counter()
            runs.begin("whole")
            assert runs.ended() == 0, (folder / "err.txt").read_text()
            usual = time.perf_counter() - start
            whole = contents(folder / "whole")
            assert len(whole) == 3 * PICTURES
            out, done = folder / "out", 0
            while done < kills:
                before = identities(out) if out.exists() else {}
                batch = runs.begin("out")
                time.sleep(rng.uniform(0, 1.1 * usual))
                with suppress(ProcessLookupError):  # it was quicker
                    os.kill(batch, signal.SIGKILL)
                code = runs.ended()
                assert code in (0, -signal.SIGKILL), (folder / "err.txt").read_text()
                found = contents(out) if out.exists() else {}
                assert found.items() <= whole.items(), "an output is not whole, or differs from that of a quiet run"
                assert before.items() <= identities(out).items() if out.exists() else not before, "a file was redone"
                done += code != 0
                usual *= 1.05 if code else 0.8  # other programs come and go
                if code and not done % 20:
                    print(f"{done} kills", flush=True)
                if code == 0:  # all is there, and no temporary file
                    assert found == whole
                    assert not list(out.glob(PARTS))
                    for path in out.iterdir():
                        path.unlink()
                else:
                    amid += 0 < len(found) < len(whole)
            before = identities(out)
            runs.begin("out")
            assert runs.ended() == 0, (folder / "err.txt").read_text()
            assert contents(out) == whole
            assert before.items() <= identities(out).items(), "a finished file was redone"
            assert not list(out.glob(PARTS)), "temporary files were left"
        finally:
            runs.close()
    return amid


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"{number} kills, {check(number)} of them amid the outputs: nothing partial, nothing redone, nothing left")
