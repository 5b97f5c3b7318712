"""Weights: loaded, checked, saved, imported from what the authors published, and pulled from where it lies.

The cards themselves are in `hdrcli.cards`, which does without torch.
"""

import glob
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hdrcli import nets
from hdrcli.cards import (
    SUFFIX,
    Card,
    check_name,
    digest,
    find,
    known,
    lookup,
    own_folders,
    require_ready,
    steps,
    write_card,
)
from hdrcli.download import Progress, fetch
from hdrcli.errors import HdrError, ReadError, UsageError, WeightsError
from hdrcli.files import atomic_write
from hdrcli.network import NetSpec, Network, StateDict
from hdrcli.sample import deviation, measure

_EXTRAS = ("emor",)  # settings that an importer may need and a network does not


@dataclass(frozen=True)
class Model:
    """A network with its weights, in eval mode on the CPU, and what is known of it.

    To another process it travels as its name and hash, and is opened there anew.
    """

    card: Card
    spec: NetSpec
    network: Network

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.card.name, self.card.sha256)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Whether weights are what their card says.

    problem: what is wrong, "" when all is well.
    deviation: how far the sample is from the card's numbers, in parts of what is allowed; None without a sample.
    """

    name: str
    problem: str = ""
    deviation: float | None = None

    @property
    def ok(self) -> bool:
        return not self.problem


def load(name: str) -> Model:
    """The model called `name`; WeightsError where weights are missing, damaged or of another network."""
    return open_card(find(name))


def _reopened(name: str, sha256: str) -> Model:
    card = find(name)
    if card.sha256 != sha256:
        raise WeightsError(
            f"the weights of {name} are not the same here: SHA-256 {card.sha256[:12]}… instead of {sha256[:12]}…",
            hint="copy the model to every machine",
        )
    return open_card(card)


def open_card(card: Card) -> Model:
    """The network of a card: hash checked first, every name and shape checked, float32, eval mode, no gradients."""
    found = digest(require_ready(card).weights)
    if found != card.sha256:
        raise WeightsError(
            f"{card.weights} is not the file that its card names: SHA-256 {found[:12]}… instead of {card.sha256[:12]}…",
            hint="it is damaged or was replaced; remove the model and get or import it again",
        )
    spec, network = _build(card)
    _fill(network, _read(card.weights), card.name)
    return Model(card, spec, network)


def verify(card: Card) -> Verification:
    """Computes hash and sample of a card anew and compares them with what it says."""
    try:
        model = open_card(card)
    except HdrError as error:
        return Verification(name=card.name, problem=error.message)
    if not card.sample:
        return Verification(name=card.name)
    parts = deviation(measure(model.network, card.task), card.sample)
    problem = "" if parts <= 1 else f"the network gives other numbers here, {parts:.3g} times what is allowed"
    return Verification(name=card.name, problem=problem, deviation=parts)


def save(
    *,
    name: str,
    net: str,
    state: StateDict,
    build: dict[str, Any],
    licence: str,
    origin: str,
    training: dict[str, Any],
    scores: dict[str, Any],
    folder: Path,
    sample: bool = True,
) -> Card:
    """Writes `<name>.safetensors`, kernels in half precision, and then `<name>.toml` into `folder`.

    state: every tensor of the network and no other. sample: whether the card gets output numbers to verify against.
    Nothing is written unless the weights fit the network and give finite numbers; WeightsError otherwise.
    """
    check_name(name)
    card = Card(
        name=name,
        net=net,
        task=nets.spec(net).task,
        file=name + SUFFIX,
        sha256="",
        build=build,
        licence=licence,
        origin=origin,
        training=training,
        scores=scores,
        folder=folder,
    )
    return _store(card, state, sampled=sample, halved=True)


def import_model(
    net: str,
    files: Sequence[Path],
    *,
    name: str,
    settings: Mapping[str, Any],
    folder: Path,
    licence: str = "",
    origin: str = "",
) -> Card:
    """Makes a model of this project from files that the authors of a network published; keeps full precision.

    settings: the network's build arguments, and `emor` (a Path) where the response basis is in a file of its own.
    A card called `name` that waits for its weights gives licence, origin and settings that are not said here, and
    the hash of its published file is checked if it is known. A card that has its weights is not replaced: UsageError.
    """
    check_name(name)
    waiting = _waiting(name)
    if waiting and waiting.net != net:
        raise UsageError(f"{name} belongs to the network {waiting.net}, not to {net}", hint="choose another --name")
    card = waiting or Card(
        name=name,
        net=net,
        task=nets.spec(net).task,
        file=name + SUFFIX,
        sha256="",
        build={},
        licence="not stated",
        origin="imported from " + ", ".join(file.name for file in files),
        folder=folder,
    )
    card = replace(card, licence=licence or card.licence, origin=origin or card.origin)
    return _convert(card, files, settings, folder)


def pull(name: str, *, progress: Progress | None = None) -> Card:
    """Gets the weights of a card from its mirrors into the user's own folder, and imports them where that is needed.

    Weights that are already there and whole are left alone. Raises WeightsError with the steps to get them by hand.
    """
    card = lookup(name)
    if card.ready and digest(card.weights) == card.sha256:
        return card
    if not card.sources or len(card.published) > 1:
        raise WeightsError(f"there is no address to pull {name} from", hint=steps(card))
    folder = own_folders()[0]
    if not card.published:
        card = replace(card, folder=folder)
        _fetch(card, card.weights, card.sha256, progress)
        write_card(card)
        return card
    ((file, sha256),) = card.published.items()
    target = folder / "downloads" / Path(file).name
    _fetch(card, target, sha256, progress)
    try:
        return _convert(card, [target], {}, folder)
    finally:
        target.unlink()
        with suppress(OSError):
            target.parent.rmdir()


def _fetch(card: Card, target: Path, sha256: str, progress: Progress | None) -> None:
    try:
        fetch(card.sources, target, sha256=sha256, progress=progress)
    except WeightsError as error:
        raise WeightsError(error.message, hint=card.howto) from error


def _waiting(name: str) -> Card | None:
    """The card of that name, if there is one without weights; UsageError if it has them."""
    card = known(name)
    if card and card.ready:
        raise UsageError(f"there is already a model named {name}", hint="choose another --name, or remove that one")
    return card


def _convert(card: Card, files: Sequence[Path], settings: Mapping[str, Any], folder: Path) -> Card:
    spec = nets.spec(card.net)
    settings = {**card.build, **settings}
    build = {key: value for key, value in settings.items() if key not in _EXTRAS}
    if fault := _fault(spec, build):
        names = ", ".join(inspect.signature(spec.build).parameters)
        raise UsageError(f"the network {card.net} {fault}", hint=f"settings: {names}")
    hashes = _hashes([*files, *(value for value in settings.values() if isinstance(value, Path))])
    expected = set(filter(None, card.published.values()))
    if not expected <= set(hashes.values()):
        raise WeightsError(
            f"{', '.join(map(str, files))} is not the file that the authors of {card.name} published",
            hint="give it another --name if these are other weights",
        )
    state = _imported(spec, card.net, files, settings)
    return _store(replace(card, build=build, published=hashes, folder=folder), state)


def _imported(spec: NetSpec, net: str, files: Sequence[Path], settings: Mapping[str, Any]) -> StateDict:
    """What the first importer gives that knows the files' format."""
    refusals = []
    for importer in spec.importers.values():
        try:
            return importer(files, settings)
        except WeightsError as error:
            refusals.append(error)
    if len(refusals) == 1:
        raise refusals[0]
    reasons = "; ".join(f"{form}: {error.message}" for form, error in zip(spec.importers, refusals, strict=True))
    raise WeightsError(f"the network {net} cannot import these files: {reasons or 'it has no published format'}")


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 by name of all files that `files` stand for: themselves, what is in a folder, what has a prefix."""
    found = {}
    for path in files:
        if path.is_file():
            found[path.name] = digest(path)
            continue
        inside = path.rglob("*") if path.is_dir() else path.parent.glob(glob.escape(path.name) + ".*")
        parts = sorted(part for part in inside if part.is_file())
        if not parts:
            raise ReadError(f"there is no file {path}", hint="check the path and its spelling")
        found |= {"/".join(part.parts[-2:]): digest(part) for part in parts}
    return found


def _store(card: Card, state: StateDict, *, sampled: bool = True, halved: bool = False) -> Card:
    """Writes weights and card, in this order, once the weights have proved to be usable."""
    _, network = _build(card)
    state = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    if halved:
        state = _halve(state, network)
    _fill(network, state, card.name)
    numbers = measure(network, card.task) if sampled else {}
    if sampled and not np.isfinite([numbers["mean"], *numbers["values"]]).all():
        raise WeightsError(f"the weights of {card.name} give no finite numbers", hint="they are not usable as they are")
    with atomic_write(card.weights) as part:
        part.write_bytes(safetensors.torch.save(state, metadata={"net": card.net}))
        sha256 = digest(part)
    card = replace(card, sha256=sha256, sample=numbers)
    write_card(card)
    return card


def _halve(state: StateDict, network: Network) -> StateDict:
    """Kernels as float16, where their numbers allow it; vectors weigh nothing, and tables may be sensitive."""
    kernels = {key for key, parameter in network.named_parameters() if parameter.ndim > 1}
    halves = {key: value.half() for key, value in state.items() if key in kernels}
    return state | {key: half for key, half in halves.items() if half.isfinite().all()}


def _build(card: Card) -> tuple[NetSpec, Network]:
    """The network of a card, still with random weights: never handed out before `_fill`."""
    spec = nets.spec(card.net)
    if spec.task != card.task:
        raise WeightsError(f"the card {card.name} says {card.task}, but the network {card.net} can only {spec.task}")
    if fault := _fault(spec, card.build):
        raise WeightsError(f"the card {card.name} cannot be right: the network {card.net} {fault}")
    return spec, spec.build(**card.build)


def _fault(spec: NetSpec, build: Mapping[str, Any]) -> str:
    """What is wrong with build arguments, "" if nothing is: unknown, of another type than the default, no count."""
    parameters = inspect.signature(spec.build).parameters
    for key, value in build.items():
        if key not in parameters:
            return f"has no setting {key!r}"
        kind = type(parameters[key].default)
        if kind in (bool, int, str) and type(value) is not kind:
            return f"has a setting {key!r} that is of the type {kind.__name__}, not {value!r}"
        if kind is int and value < 1:
            return f"has a setting {key!r} that counts from 1, not {value!r}"
    return ""


def _read(path: Path) -> StateDict:
    """All tensors of a safetensors file, mapped into memory; sizes in the header are checked against the file."""
    try:
        state: StateDict = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}", hint="get or import it again") from error
    return state


def _fill(network: Network, state: StateDict, name: str) -> None:
    """Copies every tensor into the network, as float32, and makes it ready for use; WeightsError unless all fit."""
    wanted = network.state_dict()
    faults = [f"{key} is missing" for key in wanted if key not in state]
    faults += [f"{key} is not known" for key in state if key not in wanted]
    faults += [fault for key in wanted if key in state and (fault := _misfit(key, state[key], wanted[key]))]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(f"the weights of {name} do not fit their network: {'; '.join(faults[:3])}{more}")
    network.load_state_dict(state)
    network.eval().requires_grad_(False)


def _misfit(key: str, found: Tensor, wanted: Tensor) -> str:
    if found.shape != wanted.shape:
        return f"{key} has the shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
    if found.dtype != wanted.dtype and (found.dtype, wanted.dtype) != (torch.float16, torch.float32):
        return f"{key} is {found.dtype} instead of {wanted.dtype}"
    return "" if found.isfinite().all() else f"{key} holds numbers that are not finite"
