"""Scores by other people's programs: ColorVideoVDP, the no-reference models of pyiqa, HDR-VDP-3; all optional."""

import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hdrcli import codecs
from hdrcli.color import Float32
from hdrcli.errors import HdrError, MissingExtraError, ReadError, UsageError, imported
from hdrcli.image import Image, Transfer

PYIQA_LICENCE = (
    "NIMA, MUSIQ and LIQE come from pyiqa: its code is under a non-commercial licence, and it fetches weights that "
    "have terms of their own"
)
_LIQE_SIDE = 224  # pixels of the patches that it looks at

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def check(names: tuple[str, ...], command: str | None) -> None:
    """Raises before any work what `color_video_vdp`, `no_reference` and `hdrvdp3` would raise for want of a program."""
    for name in names:
        if name == "cvvdp":
            _cvvdp()
        elif name == "hdrvdp3":
            if command is None:
                raise UsageError("HDR-VDP-3 is a program of its own", hint="say how to run it with --hdrvdp3-cmd")
        else:
            _pyiqa(name)


def color_video_vdp(prediction: Float32, reference: Float32) -> float:
    """ColorVideoVDP (Mantiuk et al., SIGGRAPH 2024) in JOD, at most 10, of (H, W, 3) BT.709 light in cd/m2.

    The display is its `standard_hdr_linear`: 1500 cd/m2 at most. MissingExtraError where it is not installed.
    """
    found, _ = _cvvdp().predict(prediction, reference, dim_order="HWC")
    return float(found)


def no_reference(name: str, picture: Float32) -> float:
    """The score that nima, musiq or liqe of pyiqa gives an sRGB-encoded (H, W, 3) picture; see PYIQA_LICENCE.

    MissingExtraError where pyiqa or its weights are not there, ReadError for a picture too small for LIQE.
    """
    if name == "liqe" and min(picture.shape[:2]) < _LIQE_SIDE:
        raise ReadError(f"LIQE scores pictures of at least {_LIQE_SIDE} pixels a side", hint="leave liqe out")
    planes = torch.from_numpy(np.clip(picture, 0, 1)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return float(_pyiqa(name)(planes))


def hdrvdp3(command: str, prediction: Float32, reference: Float32) -> float:
    """The last number that a command prints, {pred} and {ref} in it standing for EXR files in cd/m2.

    UsageError where the command names neither or cannot be run, HdrError where it fails or prints no number.
    """
    if "{pred}" not in command or "{ref}" not in command:
        raise UsageError("the command of HDR-VDP-3 names no files", hint="write {pred} and {ref} where they belong")
    with tempfile.TemporaryDirectory() as folder:
        paths = {"pred": Path(folder) / "prediction.exr", "ref": Path(folder) / "reference.exr"}
        for path, light in zip(paths.values(), (prediction, reference), strict=True):
            codecs.write(Image(light, Transfer.LINEAR), path, "exr", codecs.WriteOptions(half=False))
        words = [word.format(**paths) for word in shlex.split(command)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UsageError(f"{words[0]} cannot be run: {error.strerror}", hint="check --hdrvdp3-cmd") from error
    numbers = _NUMBER.findall(done.stdout)
    if done.returncode or not numbers:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise HdrError(f"{words[0]} gave no score: {' '.join(last) or 'it printed nothing'}", hint="try it by hand")
    return float(numbers[-1])


@cache
def _cvvdp() -> Any:
    return _import("pycvvdp", "ColorVideoVDP", "'hdrcli[eval]'").cvvdp(display_name="standard_hdr_linear", quiet=True)


@cache
def _pyiqa(name: str) -> Any:
    pyiqa = _import("pyiqa", name, "pyiqa")
    try:
        with redirect_stdout(sys.stderr):  # where it says what it loads
            return pyiqa.create_metric(name, device="cpu")
    except OSError as error:
        raise MissingExtraError(
            f"pyiqa has no weights for {name}: {error}", hint="it fetches them on first use; try again with a network"
        ) from error


def _import(module: str, score: str, package: str) -> Any:
    try:
        return imported(module, score, package)
    except RuntimeError as error:  # as torchvision says that it was built for another torch
        raise MissingExtraError(
            f"{score} is installed but does not load: {error}",
            hint=f"pip install {package} torch torchvision, all from one index: torchvision must fit torch",
        ) from error
