"""What a network learns from and is validated on, found in a folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdrcli import camera, codecs, layouts, raw, sensor
from hdrcli.cards import Task
from hdrcli.color import Float32
from hdrcli.errors import HdrError, ReadError, UsageError
from hdrcli.image import Transfer
from hdrcli.layouts import Layout

PRETRAIN = "pretrain"  # folder of ordinary pictures
_VALIDATION = ("val", "test")


@dataclass(frozen=True)
class Data:
    """What to learn from, and what to validate on, both of one kind, and ordinary pictures for a stage before."""

    train: Layout
    val: Layout
    pretrain: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{len(self.train.files)} {layouts.WORDS[self.train.kind]}, validated on {len(self.val.files)} others"


def find(folder: Path, task: Task, kinds: Sequence[layouts.Kind]) -> Data:
    """The data in `folder`/train and `folder`/val or /test; UsageError or ReadError where they cannot be used."""
    train = _part(folder, ("train",))
    val = _part(folder, _VALIDATION)
    for layout in (train, val):
        layouts.require_task(layout, task)
        if layout.kind not in kinds:
            wanted = " or ".join(layouts.WORDS[kind] for kind in kinds)
            raise UsageError(f"{layout}: this network learns from {wanted}", hint="give another folder")
    if train.kind != val.kind:
        raise UsageError(f"there are {train}, but {val}", hint="both parts must be of one kind")
    pictures = folder / PRETRAIN
    before = sorted(path for path in pictures.iterdir() if layouts.is_picture(path)) if pictures.is_dir() else ()
    return Data(train, val, tuple(before))


def _part(folder: Path, names: Sequence[str]) -> Layout:
    for name in names:
        if (folder / name).is_dir():
            layout = layouts.find(folder / name)
            if layout is None:
                raise ReadError(f"{folder / name} holds nothing to learn from", hint=f"put there {layouts.ALL}")
            return layout
    raise ReadError(f"{folder} has no folder {' or '.join(names)}", hint="put data into DIR/train and DIR/val")


def read_pair(source: Path, reference: Path) -> tuple[NDArray[np.uint8], Float32]:
    """A photograph and its light, scaled so that as much of it reaches 1.0 as is clipped in the photograph."""
    image, wanted = codecs.read(source), codecs.read(reference).require(Transfer.LINEAR, "training")
    if image.transfer != Transfer.SRGB:
        raise ReadError(f"{source} is linear light", hint="inputs are ordinary pictures")
    if image.pixels.shape != wanted.shape:
        (high, wide), (h, w) = wanted.shape[:2], image.pixels.shape[:2]
        raise ReadError(
            f"{source} has {w} x {h} pixels, but {reference.name} {wide} x {high}", hint="give pictures of one size"
        )
    light = np.where(np.isfinite(wanted), np.maximum(wanted, 0), np.float32(0))
    gain = camera.exposure_for(light, float(np.mean(image.pixels.max(axis=2) >= 1)))
    return np.rint(255 * image.pixels).astype(np.uint8), light * np.float32(gain)


def read_scene(source: Path) -> Float32:
    """The light of a scene, (H, W, 3), finite and not negative."""
    light = codecs.read(source).require(Transfer.LINEAR, "training")
    return np.where(np.isfinite(light), np.maximum(light, 0), np.float32(0))


def read_picture(source: Path) -> Float32:
    """An ordinary picture: (H, W, 3) sRGB-encoded in [0, 1]."""
    image = codecs.read(source)
    if image.transfer != Transfer.SRGB:
        raise ReadError(f"{source} is linear light", hint="ordinary pictures are needed there")
    return image.pixels


def read_raw_pair(source: Path, target: Path) -> tuple[Float32, Float32]:
    """Planes of a RAW file, and the picture to be made of it: (4, h, w), (2h, 2w, 3) sRGB-encoded.

    Mosaics in PNG files are fed as they are, `native`; files that name their sensor as the virtual one, `canonical`.
    """
    feed: raw.Feed = "native" if source.suffix.lower() == ".png" else "canonical"
    mosaic = raw.read(source, sensor=feed)
    planes = sensor.native(mosaic) if feed == "native" else sensor.canonical(mosaic)
    picture = read_picture(target)
    rows, columns = 2 * planes.shape[1], 2 * planes.shape[2]
    if picture.shape[:2] != (rows, columns):
        high, wide = picture.shape[:2]
        raise ReadError(
            f"{source} has {columns} x {rows} pixels, but {target.name} {wide} x {high}",
            hint="give pictures of one size, not turned",
        )
    return planes, picture


READERS: Mapping[layouts.Kind, Callable[..., object]] = {
    "scenes": read_scene,
    "ldr-hdr": read_pair,
    "raw-picture": read_raw_pair,
}


def faults(data: Data, read: Callable[..., object]) -> list[tuple[Path, HdrError]]:
    """Reads everything once; the files that cannot be used, each with the error that says why."""
    found = []
    pairs = [(read, files) for files in (*data.train.files, *data.val.files)]
    for reader, files in [*pairs, *((read_picture, (path,)) for path in data.pretrain)]:
        try:
            reader(*files)
        except HdrError as error:
            found.append((files[0], error))
    return found
