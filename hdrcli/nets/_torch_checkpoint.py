"""Reads published torch weight files safely and strictly: nothing in a file is run, nothing is skipped in silence."""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from hdrcli.errors import WeightsError
from hdrcli.network import StateDict

_LISTED = 3

# All that torch's two readers were seen to raise on files that were damaged at random.
_DAMAGED = (
    *(pickle.UnpicklingError, EOFError, struct.error),
    zipfile.BadZipFile,
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
)


def read_state_dict(path: Path) -> StateDict:
    """The state dict in a torch file of any age, on the CPU, without the `module.` prefix of nn.DataParallel.

    Only tensors and plain containers are unpickled; anything else in the file, and damage, raises WeightsError.
    """
    try:
        content = BytesIO(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}", hint="check the path of the file") from error
    try:
        _refuse_inflation(content)
        content.seek(0)
        with warnings.catch_warnings(action="ignore"):  # of torch's, about the age of the file
            found = torch.load(content, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise WeightsError(
            f"{path.name} is not a torch weight file that is safe to read: it is damaged, or holds more than arrays",
            hint="fetch it again; a file that only loads with weights_only=False can run any code and is refused",
        ) from error
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise WeightsError(f"{path.name} holds no state dict", hint="a state dict maps the name of each array to it")
    return {name.removeprefix("module."): value for name, value in found.items()}


def _refuse_inflation(content: BytesIO) -> None:
    """ValueError for an archive that would unpack to more than its own size; torch stores arrays as they are."""
    if not zipfile.is_zipfile(content):
        return
    with zipfile.ZipFile(content) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(content.getbuffer()):
            raise ValueError("a compressed archive")


def import_arrays(
    paths: Sequence[Path], modules: Mapping[str, str], expected: Mapping[str, Tensor], network: str
) -> StateDict:
    """Reads one published file and renames its arrays, or says in one WeightsError how it differs.

    modules: our module's path to the published one. expected: the arrays a network of this build has, of which only
    the shapes are looked at. Returns float32 arrays under our names.
    """
    if len(paths) != 1:
        raise WeightsError(f"{network} weights come in one file, not in {len(paths)}", hint="name one file")
    found = read_state_dict(paths[0])
    published = {ours: _published_name(ours, modules) for ours in expected}
    faults = [f"{name} is missing" for name in published.values() if name not in found]
    faults += [f"{name} is not known" for name in sorted(found.keys() - set(published.values()))]
    faults += [
        f"{name} is {_shape(found[name])}, not {_shape(expected[ours])}"
        for ours, name in published.items()
        if name in found and found[name].shape != expected[ours].shape
    ]
    faults += [
        f"{name} holds numbers that are not finite"
        for name in published.values()
        if name in found and not found[name].isfinite().all()
    ]
    if faults:
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise WeightsError(
            f"{paths[0].name} does not fit {network}: {'; '.join(faults[:_LISTED])}{more}",
            hint="is it another network's file, or does the build (such as its width) differ?",
        )
    return {ours: found[name].to(torch.float32, copy=True).contiguous() for ours, name in published.items()}


def _published_name(ours: str, modules: Mapping[str, str]) -> str:
    module, _, array = ours.rpartition(".")
    return f"{modules.get(module, module)}.{array}"


def _shape(array: Tensor) -> str:
    return "x".join(map(str, array.shape)) or "a single number"
