"""train: fits one of our own networks to simulated pictures of HDR scenes and keeps the result as a model."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from hdrcli import __version__, cards, training, zoo
from hdrcli.errors import ReadError, UsageError

_PARTS = ("loop", "pool")  # of the folder `training/` that are no network's


def trainable() -> list[str]:
    """The networks that can be trained."""
    return sorted(module.name for module in iter_modules(training.__path__) if module.name not in _PARTS)


def train(net: str, *, data: Path, name: str, seconds: float, seed: int = 0, folder: Path | None = None) -> cards.Card:
    """Trains `net` for about `seconds` and saves weights and card as `name` in `folder` (the user's own by default).

    data: a folder with HDR scenes in train/ and val/; the weights that score best on val/ are kept, also on the way,
    in `<name>.checkpoint` beside the card. Raises UsageError for a network or name that cannot be, ReadError for data
    that cannot be read.
    """
    if net not in trainable():
        raise UsageError(f"{net} cannot be trained here", hint="networks: " + ", ".join(trainable()))
    cards.check_name(name)
    for part in ("train", "val"):
        if not (data / part).is_dir():
            raise ReadError(f"{data} has no folder {part}", hint="put HDR scenes into DIR/train and DIR/val")
    target = folder or cards.own_folders()[0]
    checkpoint = target / f"{name}.checkpoint"
    state, scores = import_module(f"hdrcli.training.{net}").fit(data, checkpoint, seconds, seed)
    facts = {"seconds": seconds, "seed": seed, "version": __version__, "data": f"HDR scenes of {data.name}/train"}
    card = zoo.save(
        name=name,
        net=net,
        state=state,
        build={},
        licence="CC0-1.0",
        origin="trained with hdr train",
        training={**facts, "steps": int(scores["steps"])},
        scores={"val": {key: round(value, 3) for key, value in scores.items() if key not in ("steps", "error")}},
        folder=target,
    )
    checkpoint.unlink(missing_ok=True)
    return card
