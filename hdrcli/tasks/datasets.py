"""What `hdr eval` works on: pairs of files, scenes through the virtual camera, and the layouts of published data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hdrcli import camera, codecs, layouts, raw
from hdrcli.cards import Task
from hdrcli.color import CLIPPED_CODE, Float32, luminance, srgb_decode, srgb_encode
from hdrcli.errors import ReadError, UsageError
from hdrcli.image import Image, Transfer
from hdrcli.layouts import is_picture, require_partners
from hdrcli.sensor import MIDDLE_GREY, Mosaic, canonical, native, upright
from hdrcli.tonemap.fusion import fusion

Feed = Literal["canonical", "native"]
Read = Callable[[Callable[..., Any], Path], Any]  # makes of a file what a reader makes of it, as `Decoders.read` does

WIDTH, HEIGHT = 512, 384  # of simulated views
CAMERAS = 3  # that photograph each scene for develop

_OUTPUTS = ("_hdr", "_developed")  # what expand and develop add to names


@dataclass(frozen=True)
class Loaded:
    """One picture to score. reference, plain, given: (H, W, 3) in what the protocol holds.

    source: what a model is given. plain: the unprocessed input, None where there is none. clipped: (H, W) mask.
    given: a prediction that came as a file. notes: what was corrected or assumed.
    """

    reference: Float32
    clipped: NDArray[np.bool_]
    plain: Float32 | None = None
    source: Image | Mosaic | None = None
    given: Float32 | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One picture to be loaded. scene: what is drawn anew by the bootstrap. group: its kind, "" for the only one."""

    name: str
    load: Callable[[], Loaded] = field(repr=False)
    scene: str = ""
    group: str = ""


def read_here(reader: Callable[..., Any], source: Path) -> Any:
    """Reads in this process."""
    return reader(source)


# ------------------------------------------------------------------------------------------ pairs of files


def file_pairs(
    prediction: Path, reference: Path, inputs: Path | None, holds: Transfer, *, read: Read = read_here
) -> list[Sample]:
    """Predictions and references, files or folders, matched by stem; UsageError where one lacks its partner."""
    found = [_by_stem(place) for place in (prediction, reference, inputs) if place is not None]
    if all(place.is_file() for place in (prediction, reference)):
        stem = reference.stem
        found = [{stem: next(iter(files.values()))} if len(files) == 1 else files for files in found]
    for other in found[1:]:
        require_partners(found[0], other)
    return [
        Sample(stem, partial(_load_pair, *(files[stem] for files in found), holds=holds, read=read), stem)
        for stem in sorted(found[1])
    ]


def _by_stem(place: Path) -> dict[str, Path]:
    if not place.exists():
        raise ReadError(f"there is no {place}", hint="check the path and its spelling")
    files = [place] if place.is_file() else sorted(p for p in place.iterdir() if is_picture(p))
    if not files:
        raise UsageError(f"{place} holds no picture", hint="give a file, or a folder of pictures")
    stems: dict[str, Path] = {}
    for path in files:
        stem = next((path.stem.removesuffix(end) for end in _OUTPUTS if path.stem.endswith(end)), path.stem)
        if stem in stems:
            raise UsageError(f"{stems[stem].name} and {path.name} have one name", hint="keep one of them")
        stems[stem] = path
    return stems


def _load_pair(prediction: Path, reference: Path, source: Path | None = None, *, holds: Transfer, read: Read) -> Loaded:
    wanted, notes = _read(reference, holds, "reference", read)
    given, more = _read(prediction, holds, "prediction", read)
    notes += more
    if source is not None:
        image = _encoded(source, read)
        encoded = image.pixels
    elif holds == Transfer.LINEAR:
        encoded = np.rint(255 * srgb_encode(np.clip(wanted, 0, 1))).astype(np.float32) / np.float32(255)
        notes += ("no --input: it is taken to be the reference clipped at 1.0, sRGB-encoded in 8 bits",)
    else:
        notes += ("no --input: there is no row of the unprocessed picture",)
        return Loaded(wanted, np.zeros(wanted.shape[:2], bool), given=given, notes=notes)
    _same_size(reference, wanted, prediction, given)
    _same_size(reference, wanted, source or reference, encoded)
    plain = srgb_decode(encoded) if holds == Transfer.LINEAR else encoded
    return Loaded(wanted, clipped_mask(encoded), plain, given=given, notes=notes)


def _read(path: Path, holds: Transfer, what: str, read: Read) -> tuple[Float32, tuple[str, ...]]:
    """Pixels that the protocol can take; ReadError for the wrong kind, a note for what had to be corrected."""
    image: Image = read(codecs.read, path)
    if image.transfer != holds:
        linear = holds == Transfer.LINEAR
        kind = "an ordinary 8-bit picture" if linear else "linear light"
        hint = "--protocol display compares ordinary pictures" if linear else "--protocol hanji compares linear light"
        raise ReadError(f"the {what} {path.name} is {kind}, which this protocol does not compare", hint=hint)
    pixels, notes = cleaned(image.pixels, what)
    return pixels, tuple(f"{what}: {note}" for note in image.meta.notes) + notes


def _encoded(path: Path, read: Read) -> Image:
    image: Image = read(codecs.read, path)
    if image.transfer != Transfer.SRGB:
        raise ReadError(f"the input {path.name} is linear light", hint="inputs are ordinary pictures")
    return image


def cleaned(pixels: Float32, what: str) -> tuple[Float32, tuple[str, ...]]:
    """Pixels with numbers that are not finite or negative set to 0, and notes that count them."""
    bad, negative = ~np.isfinite(pixels), pixels < 0
    notes = []
    for count, kind in ((int(bad.sum()), "values that are not finite"), (int(negative.sum()), "negative values")):
        if count:
            notes.append(f"{what}: {count} of {pixels.size} {kind} taken as 0")
    return (np.where(bad | negative, np.float32(0), pixels) if notes else pixels), tuple(notes)


def clipped_mask(encoded: Float32) -> NDArray[np.bool_]:
    """(H, W) mask of the pixels with a channel of at least 250 of 255."""
    red, green, blue = np.moveaxis(encoded, 2, 0)
    return np.asarray(np.maximum(np.maximum(red, green), blue) >= CLIPPED_CODE - 1e-4)


def _same_size(reference: Path, wanted: Float32, other: Path, picture: Float32) -> None:
    if wanted.shape != picture.shape:
        (high, wide), (h, w) = wanted.shape[:2], picture.shape[:2]
        raise ReadError(
            f"{other.name} has {w} x {h} pixels, but the reference {reference.name} {wide} x {high}",
            hint="nothing is resized: give pictures of one size",
        )


# ------------------------------------------------------------------------------------------ data for models


def discover(
    data: Path, task: Task, *, views: int, seed: int, feed: Feed, read: Read = read_here
) -> tuple[list[Sample], str]:
    """The samples in a folder for models of `task`, and a sentence that says what the folder was taken for."""
    if not data.is_dir():
        raise UsageError(f"{data} is no folder", hint="with --model, name one folder of data")
    for base in (data / "test", data / "val", data):
        layout = layouts.find(base)
        if layout is None:
            continue
        layouts.require_task(layout, task)
        if layout.kind == "ldr-hdr":
            pairs = [Sample(a.stem, partial(_load_ldr, a, b, read), a.stem) for a, b in layout.files]
            return pairs, f"LDR and HDR pairs by sorted name in {base}"
        if layout.kind == "raw-picture":
            pairs = [Sample(a.stem, partial(_load_raw, a, b, feed, read), a.stem) for a, b in layout.files]
            return pairs, f"RAW and picture pairs by name in {base}"
        simulate = _ldr_views if task == "expand" else _raw_views
        scenes = [path for (path,) in layout.files]
        return (
            [
                sample
                for index, path in enumerate(scenes)
                for sample in simulate(path, (seed, index), views, feed, read)
            ],
            f"HDR scenes in {base} through the virtual camera: {len(scenes)}, views of each: {views}, seed {seed}",
        )
    raise UsageError(f"{data} holds nothing to evaluate a model on", hint=f"give a folder of {layouts.ALL}")


def _load_ldr(source: Path, reference: Path, read: Read) -> Loaded:
    image = _encoded(source, read)
    wanted, notes = _read(reference, Transfer.LINEAR, "reference", read)
    _same_size(reference, wanted, source, image.pixels)
    share = float(np.mean(image.pixels.max(axis=2) >= 1))
    gain = camera.exposure_for(wanted, share)
    note = f"reference scaled by {gain:.4g}: as much of it reaches 1.0 as is clipped in the input ({share:.2%})"
    return Loaded(
        wanted * np.float32(gain),
        clipped_mask(image.pixels),
        srgb_decode(image.pixels),
        image,
        notes=(*notes, note),
    )


def _load_raw(source: Path, target: Path, feed: Feed, read: Read) -> Loaded:
    mosaic: Mosaic = read(partial(raw.read, sensor=feed), source)
    wanted, notes = _read(target, Transfer.SRGB, "reference", read)
    plain = bilinear(mosaic, feed)
    _same_size(target, wanted, source, plain)
    return Loaded(wanted, np.zeros(wanted.shape[:2], bool), plain, mosaic, notes=mosaic.meta.notes + notes)


def bilinear(mosaic: Mosaic, feed: Feed) -> Float32:
    """What the network is fed as a plain picture: each 2x2 block gives one colour, repeated; sRGB-encoded."""
    blue, gr, red, gb = canonical(mosaic) if feed == "canonical" else native(mosaic)
    small = np.stack([red, (gr + gb) / 2, blue], axis=2)
    full = small.repeat(2, axis=0).repeat(2, axis=1)
    return srgb_encode(np.clip(upright(full, mosaic), 0, 1))


# ------------------------------------------------------------------------------------------ simulated pictures


def _ldr_views(path: Path, seed: tuple[int, int], views: int, feed: Feed, read: Read) -> Sequence[Sample]:
    return [
        Sample(f"{path.stem}-{view + 1}", partial(_shoot, path, (*seed, view), kind, read), path.stem, kind)
        for view in range(views)
        for kind in camera.KINDS
    ]


def _shoot(path: Path, seed: tuple[int, int, int], kind: camera.Kind, read: Read) -> Loaded:
    """An 8-bit photograph of a random view, 3 to 15 % of it clipped; the same view, exposure and curve in all kinds."""
    view, rng = _view(path, seed, read)
    light = view * np.float32(camera.exposure_for(view, float(np.exp(rng.uniform(np.log(0.03), np.log(0.15))))))
    curve = camera.random_curve(rng)
    codes = camera.photograph(light, curve, kind, np.random.default_rng((*seed, camera.KINDS.index(kind))))
    encoded = codes.astype(np.float32) / np.float32(255)
    return Loaded(light, clipped_mask(encoded), srgb_decode(encoded), Image(encoded, Transfer.SRGB))


def _raw_views(path: Path, seed: tuple[int, int], views: int, feed: Feed, read: Read) -> Sequence[Sample]:
    return [
        Sample(f"{path.stem}-{view + 1}", partial(_record, path, (*seed, view), number, feed, read), path.stem, name)
        for view in range(views)
        for number, name in enumerate(f"camera {n + 1}" for n in range(CAMERAS))
    ]


def _record(path: Path, seed: tuple[int, int, int], number: int, feed: Feed, read: Read) -> Loaded:
    """A 10-bit mosaic of a random view, 0.1 to 5 % of it clipped, and the finished picture of the unclipped view."""
    view, _ = _view(path, seed, read)
    rng = np.random.default_rng((*seed, number))
    share = float(np.exp(rng.uniform(np.log(0.001), np.log(0.05))))
    mosaic = camera.record(view, camera.random_sensor(rng, bits=10), share, rng)
    mean = np.exp(np.mean(np.log(np.maximum(luminance(view), 1e-6))))
    wanted = fusion(view * np.float32(MIDDLE_GREY / mean))
    return Loaded(wanted, np.zeros(wanted.shape[:2], bool), bilinear(mosaic, feed), mosaic)


def _view(path: Path, seed: tuple[int, int, int], read: Read) -> tuple[Float32, np.random.Generator]:
    """A random view of a scene, scaled to a median of 0.18, and the generator that drew it."""
    rng = np.random.default_rng(seed)
    pixels, _ = _read(path, Transfer.LINEAR, "scene", read)
    view = camera.random_view(pixels, rng, width=WIDTH, height=HEIGHT)
    return np.minimum(view * np.float32(MIDDLE_GREY / max(float(np.median(view)), 1e-6)), 60000), rng
