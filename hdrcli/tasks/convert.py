"""develop and expand for many files: what happens to each, from its bytes to its outputs."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from hdrcli import codecs, files, infer, memory, zoo
from hdrcli.batch import Check, Outcome, failure
from hdrcli.codecs import WriteOptions
from hdrcli.errors import HdrError
from hdrcli.files import STREAM, Job
from hdrcli.infer import Compute
from hdrcli.isolation import Decoders
from hdrcli.tasks.common import Made
from hdrcli.tasks.preview import preview


class Way(Protocol):
    """How one picture is made by `model`, a dataclass: what `develop` and `expand` differ in."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def model(self) -> zoo.Model: ...

    @property
    def compute(self) -> Compute: ...

    @property
    def reader(self) -> Callable[..., Any]:
        """Called with a path or bytes, and a `name`; can be pickled."""
        ...

    def make(self, decoded: Any, check: Check) -> Made: ...


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The stages of a batch. Each picture is decoded and processed once, whatever the number of formats.

    decoders: processes in which files are read. formats: of the outputs; the job's target is the first, the others lie
    beside it. overwrite: whether outputs that are there are replaced. preview: whether one is written beside it.
    """

    way: Way
    decoders: Decoders
    formats: Sequence[str]
    options: WriteOptions
    overwrite: bool = False
    preview: bool = False

    def in_one_precision(self) -> "Conversion":
        """The same in the precision that suits this machine, wherever it runs: those of a cluster may differ."""
        here = infer.describe(replace(self.way.compute, device="auto"), self.way.model.network)
        compute = replace(self.way.compute, precision=here.precision)
        return replace(self, way=replace(self.way, compute=compute))

    def on_each_device(self) -> list["Conversion"]:
        """One for each device that may be used, all but the first with a copy of the network."""
        first, *others = infer.devices(self.way.compute)
        ways = [replace(self.way, compute=replace(self.way.compute, device=first))]
        for device in others:
            model = replace(self.way.model, network=deepcopy(self.way.model.network))
            ways.append(replace(self.way, model=model, compute=replace(self.way.compute, device=device)))
        return [replace(self, way=way) for way in ways]

    def skipped(self, job: Job) -> list[Outcome]:
        """One outcome for each output, where all are there."""
        outputs = self._outputs(job)
        wanted = [*outputs.values(), *([_preview_of(job.target)] if self.preview else [])]
        if not all(map(self._there, wanted)):
            return []
        return [Outcome(job=Job(job.source, target), status="skipped") for target in outputs.values()]

    def decode(self, job: Job) -> Any:
        """The picture, read in a process of its own; WriteError before that, where no output can be written."""
        targets = self._outputs(job).values()
        if all(target.is_dir() for target in targets):
            files.refuse_folder(job.target)
        return self.decoders.read(self.way.reader, job.source)

    def process(self, job: Job, decoded: Any, check: Check) -> Made:
        """The picture through the network."""
        try:
            made = self.way.make(decoded, check)
        except RuntimeError as error:
            if not infer.is_for_memory(error):
                raise
            raise MemoryError from error
        if codecs.ULTRA_HDR not in self.formats:
            made = made._replace(partner=None)  # nobody needs it any more
        if made.image.samples.size > infer.LARGE:
            memory.give_back()
        return made

    def encode(self, job: Job, made: Made) -> list[Outcome]:
        """One outcome for each output."""
        outcomes = [self._written(Job(job.source, target), made, name) for name, target in self._outputs(job).items()]
        notes = _write_preview(_preview_of(job.target), made) if self.preview else []
        outcomes[0] = replace(outcomes[0], notes=(*made.image.meta.notes, *outcomes[0].notes, *notes))
        return outcomes

    def _outputs(self, job: Job) -> dict[str, Path]:
        """The output in each format."""
        further = {name: job.target.with_suffix(codecs.extension(name)) for name in self.formats[1:]}
        return {self.formats[0]: job.target} | further

    def _there(self, target: Path) -> bool:
        return not self.overwrite and target != STREAM and files.is_written(target)

    def _written(self, output: Job, made: Made, name: str) -> Outcome:
        if self._there(output.target):
            return Outcome(job=output, status="skipped")
        try:
            notes = _write(output.target, lambda path: _encode(made, path, name, self.options))
        except HdrError as error:
            return failure(output, error)
        return Outcome(
            job=output,
            status="written",
            width=made.image.width,
            height=made.image.height,
            model=self.way.model.card.name,
            device=made.device,
            precision=made.precision,
            tiles=made.tiles,
            notes=tuple(notes),
        )


def _encode(made: Made, path: Path, name: str, options: WriteOptions) -> list[str]:
    if name != codecs.ULTRA_HDR:
        return codecs.write(made.image, path, name, options)
    assert made.partner is not None, "checked before"
    light, base = sorted([made.image, made.partner], key=lambda image: image.transfer)  # "linear" comes before "srgb"
    return codecs.write(light, path, codecs.codec_of(name), replace(options, base=base))


def _write(target: Path, write: Callable[[Path], list[str]]) -> list[str]:
    if target != STREAM:
        with files.atomic_write(target) as part:
            return write(part)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        notes = write(path)
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return notes


def _preview_of(target: Path) -> Path:
    return target.with_name(f"{target.stem}_preview.png")


def _write_preview(place: Path, made: Made) -> list[str]:
    small, note = preview(made.image)
    return [note, *_write(place, lambda path: codecs.write(small, path, "png", WriteOptions(metadata=False)))]
