"""What a training can be continued from: one file with the newest state, one with the best weights."""

import copy
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from hdrcli.errors import ReadError, WriteError
from hdrcli.files import atomic_write
from hdrcli.network import Network, StateDict
from hdrcli.training.course import Scores

NEWEST, BEST = "newest.pt", "best.pt"
_COPIES = 7  # of the weights: newest with average and two moments, best, and one of each being written


@dataclass
class State:
    """A training between two steps.

    stage, step, seconds: where it stands, the latter two within the stage. total: steps of all stages.
    averaged: the network with averaged weights. moments: state of the optimizer of this stage.
    best: the scores of the best weights of this stage so far.
    """

    network: Network
    averaged: Network
    moments: dict[str, Any] = field(default_factory=dict)
    stage: int = 0
    step: int = 0
    seconds: float = 0.0
    total: int = 0
    best: Scores = field(default_factory=dict)


def begin(network: Network) -> State:
    return State(network, copy.deepcopy(network).eval().requires_grad_(False))


def average(state: State, decay: float) -> None:
    """Draws the averaged weights towards the present ones, faster in the first steps of a stage."""
    weight = min(decay, state.step / (state.step + 10))
    with torch.no_grad():
        pairs = zip(state.averaged.state_dict().values(), state.network.state_dict().values(), strict=True)
        for mean, new in pairs:
            if mean.dtype.is_floating_point:
                mean.lerp_(new, 1 - weight)
            else:
                mean.copy_(new)


def next_stage(state: State) -> None:
    """Goes on from the averaged weights, with a fresh optimizer."""
    state.network.load_state_dict(state.averaged.state_dict())
    state.stage, state.step, state.seconds = state.stage + 1, 0, 0.0
    state.moments, state.best = {}, {}


def save(state: State, folder: Path) -> None:
    """Writes the newest state, in one step."""
    table = {
        "network": state.network.state_dict(),
        "averaged": state.averaged.state_dict(),
        "moments": state.moments,
        "place": [state.stage, state.step, state.total],
        "seconds": state.seconds,
        "best": dict(state.best),
    }
    _write(table, folder / NEWEST)


def save_best(state: State, scores: Scores, folder: Path) -> None:
    state.best = dict(scores)
    _write({"weights": state.averaged.state_dict(), "scores": state.best, "stage": state.stage}, folder / BEST)


def load(state: State, folder: Path) -> None:
    """Fills a state that `begin` made from the newest one in `folder`."""
    table = _read(folder / NEWEST)
    try:
        state.network.load_state_dict(table["network"])
        state.averaged.load_state_dict(table["averaged"])
    except (KeyError, RuntimeError) as error:
        raise ReadError(
            f"the state in {folder} is of another network: {str(error).splitlines()[0]}",
            hint="its recipe.toml was changed; begin anew under another name",
        ) from error
    state.moments, state.seconds, state.best = table["moments"], table["seconds"], table["best"]
    state.stage, state.step, state.total = table["place"]


def load_best(folder: Path, stage: int) -> tuple[StateDict, Scores] | None:
    """The best weights of a stage and their scores, None where that stage was not validated yet."""
    if not (folder / BEST).is_file():
        return None
    table = _read(folder / BEST)
    return (table["weights"], table["scores"]) if table["stage"] == stage else None


def require_space(network: nn.Module, folder: Path) -> None:
    """WriteError where the disk has no room for what a training keeps."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = _COPIES * sum(tensor.nbytes for tensor in network.state_dict().values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WriteError(
            f"there is too little space in {folder}: {needed / 2**20:.0f} MiB are needed, {free / 2**20:.0f} are free",
            hint="make room, or name another folder by HDR_MODELS_DIR",
        )


def _write(table: dict[str, Any], path: Path) -> None:
    with atomic_write(path) as part:
        try:
            torch.save(table, part)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(str(error)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise ReadError(
            f"the state {path} cannot be read: {str(error).splitlines()[0]}", hint="begin anew under another name"
        ) from error
    return table
