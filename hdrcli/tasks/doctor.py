"""doctor: what of this installation works, what is missing or broken, and what to do about it."""

import os
import platform
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from hdrcli import cards
from hdrcli.errors import HdrError

State = Literal["good", "note", "broken"]

_PACKAGE = "hdrcli"
_DEVELOPERS = "test"  # the extra that no user needs
_MODULES = {"opencv-python": "cv2", "openexr": "OpenEXR", "pillow": "PIL", "cvvdp": "pycvvdp"}  # that are named unlike
_LITTLE = 2**30  # bytes of free space
_COARSER = 30  # times a card's tolerance: accelerators may round the factors of a product to 11 bits (TF32)


class Finding(NamedTuple):
    """What was looked at and what became of it.

    state: "good"; "note" for what is not there, or not as it might be, and hinders nothing else; or "broken".
    hint: what to do, "" where there is nothing to do.
    """

    subject: str
    state: State
    detail: str
    hint: str = ""


def examine() -> Iterator[Finding]:
    """Looks at Python, packages, devices, models and space, in this order; models need a torch that loads."""
    yield Finding("python", "good", f"{platform.python_version()} on {platform.platform()}")
    loads = True
    for finding in _packages():
        loads &= not (finding.subject in ("torch", "numpy", "safetensors") and finding.state == "broken")
        yield finding
    if loads:
        yield from _devices()
        yield from _models()
    yield from _space()


def _packages() -> Iterator[Finding]:
    """One finding for each package that is always needed, and one for each extra."""
    extras: defaultdict[str, list[Requirement]] = defaultdict(list)
    try:
        requirements = [Requirement(line) for line in metadata.requires(_PACKAGE) or ()]
        names = metadata.metadata(_PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        yield Finding(_PACKAGE, "broken", "it runs without being installed", "run pip install . where its source lies")
        return
    for requirement in requirements:
        if requirement.marker is None:
            yield _package(requirement.name, [requirement], _PACKAGE)
        for name in names:
            if requirement.marker and requirement.marker.evaluate({"extra": name}):
                extras[name].append(requirement)
    for name in names:
        if name != _DEVELOPERS:
            yield _package(f"extra {name}", extras[name], f"{_PACKAGE}[{name}]", needed=False)


def _package(subject: str, requirements: Sequence[Requirement], install: str, *, needed: bool = True) -> Finding:
    """Whether packages that belong together are there, load, and have the versions that were asked for."""
    hint = f"pip install --upgrade '{install}'"
    versions = {requirement.name: _version(requirement.name) for requirement in requirements}
    if absent := [name for name, version in versions.items() if not version]:
        return Finding(subject, "broken" if needed else "note", f"{', '.join(absent)} is not installed", hint)
    for name in versions:
        try:
            import_module(_MODULES.get(name, name.replace("-", "_")))
        except (ImportError, OSError, RuntimeError) as error:
            again = f"pip install --force-reinstall '{install}', all from one index"
            return Finding(subject, "broken", f"{name} does not load: {error}", again)
    detail = ", ".join(f"{name} {version}" for name, version in versions.items())
    for requirement in requirements:
        if not requirement.specifier.contains(versions[requirement.name], prereleases=True):
            return Finding(subject, "note", f"{detail}, but {requirement.specifier} was asked for", hint)
    return Finding(subject, "good", detail)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _devices() -> Iterator[Finding]:
    import torch

    from hdrcli import infer

    threads, kind = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    yield Finding("cpu", "good", f"{os.cpu_count()} cores, {threads} threads, {kind}")
    yield _bf16()
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    found += ["mps"] if torch.backends.mps.is_available() else []
    for device in found:
        yield _accelerator(device)
    if not found:
        reason = infer.describe(infer.Compute()).reason
        driver = shutil.which("nvidia-smi")
        hint = "there is an NVIDIA driver: install a torch for CUDA, see pytorch.org/get-started" if driver else ""
        yield Finding("gpu", "note", f"{reason}: everything runs on the CPU", hint)


def _bf16() -> Finding:
    """How fast this CPU convolves in bfloat16, in parts of its speed in float32."""
    import torch

    from hdrcli.precision import ceiling

    cpu = torch.device("cpu")
    ratio = ceiling(cpu, "bf16") / ceiling(cpu, "fp32")
    advice = "" if ratio > 1 else ": leave --precision as it is"
    return Finding("cpu bf16", "good" if ratio > 1 else "note", f"{ratio:.1f} times the speed of fp32{advice}")


def _accelerator(device: str) -> Finding:
    """Whether the default model gives on `device` what its card says."""
    import torch

    from hdrcli import sample, zoo

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "Metal"
    try:
        model = zoo.load(cards.default_model("expand"))
        measured = sample.measure(model.network.to(device), model.card.task, device)
    except (HdrError, RuntimeError) as error:
        return Finding(device, "broken", f"{name}: {error}", "use --device cpu, and check driver and torch")
    parts = sample.deviation(measured, model.card.sample)
    if parts > _COARSER:
        detail = f"{name} gives other numbers, {parts:.3g} times what is allowed on a CPU"
        return Finding(device, "broken", detail, "use --device cpu, and check driver and torch")
    return Finding(device, "good", f"{name}: the sample of {model.card.name} agrees")


def _models() -> Iterator[Finding]:
    """Every card, its hash and its sample; those whose weights are not here in one finding."""
    from hdrcli import zoo

    defaults = {cards.default_model("expand"), cards.default_model("develop")}
    waiting = []
    for name, path in sorted(cards.paths().items()):
        subject = f"model {name}"
        try:
            card = cards.read_card(path)
        except HdrError as error:
            yield Finding(subject, "broken", error.message, error.hint)
            continue
        if not card.ready and name not in defaults:
            waiting.append(name)
            continue
        checked = zoo.verify(card)
        if not checked.ok:
            hint = f"hdr models remove {name}, then get it again; reinstall {_PACKAGE} if the model came with it"
            yield Finding(subject, "broken", checked.problem, hint)
        elif checked.deviation is None:
            yield Finding(subject, "good", "the hash agrees; its card has no sample")
        else:
            yield Finding(subject, "good", f"hash and sample agree, {checked.deviation:.2g} of the tolerance")
        defaults.discard(name)
    for name in sorted(defaults):
        yield Finding(f"model {name}", "broken", "there is no card of this default model", f"reinstall {_PACKAGE}")
    if waiting:
        yield Finding("models", "note", f"no weights here: {', '.join(waiting)}", "hdr models show NAME says how to")


def _space() -> Iterator[Finding]:
    try:
        yield _folder("temporary files", Path(tempfile.gettempdir()), "broken", "set TMPDIR to another folder")
    except FileNotFoundError as error:
        yield Finding("temporary files", "broken", f"{error.strerror}", "set TMPDIR to a folder that can be written to")
    own = cards.own_folders()[0]
    yield _folder("models folder", own, "note", f"set {cards.FOLDER_VARIABLE} to another folder to add models")


def _folder(subject: str, folder: Path, locked: State, hint: str) -> Finding:
    """Whether something can be written below a folder, which need not be there yet. locked: the state if it cannot."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return Finding(subject, locked, f"{folder} cannot be written to", hint)
    free = shutil.disk_usage(there).free
    detail = f"{folder}, {free / 2**30:.1f} GiB free"
    return Finding(subject, "good" if free > _LITTLE else "note", detail, "" if free > _LITTLE else hint)


def record(findings: Sequence[Finding]) -> Mapping[str, object]:
    """All findings as one JSON object; `healthy` is whether none is broken."""
    return {
        "schema": "hdrcli-doctor/1",
        "healthy": not any(finding.state == "broken" for finding in findings),
        "checks": [finding._asdict() for finding in findings],
    }
