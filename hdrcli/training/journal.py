"""What a training leaves for people: a table of numbers, curves, a sheet of pictures, TensorBoard where installed."""

import csv
import importlib.util
import io
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hdrcli.files import atomic_write
from hdrcli.training.loop import Report

LOG, CURVES, PICTURES = "log.csv", "curves.png", "pictures.png"
EVERY = 20.0  # seconds between two rows

_WIDTH, _HEIGHT, _MARGIN = 480, 300, 40  # of a panel of curves
_COLOURS = ((200, 80, 0), (0, 130, 230), (60, 160, 60), (160, 60, 160), (90, 90, 90), (0, 0, 200))

Picture = NDArray[np.uint8]


class Journal:
    """Writes rows of a training into `log.csv` of its folder; rows of steps that are taken again are replaced."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self._folder = folder
        self._rows: list[dict[str, Any]] = _read(folder / LOG) if resume else []
        self._written = -math.inf
        self._begun = False
        self._board = _board(folder)

    def __call__(self, report: Report) -> None:
        if not self._begun:
            self._rows = [row for row in self._rows if int(row["step"]) < report.step]
            self._begun = True
        if report.scores or time.monotonic() - self._written > EVERY:
            self._written = time.monotonic()
            row = _row(report)
            self._rows.append(row)
            self._write()
            if self._board is not None:
                for name in row.keys() - {"step", "stage"}:
                    self._board.add_scalar(name, row[name], report.step)

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        with atomic_write(self._folder / LOG) as part:
            part.write_text(text.getvalue(), encoding="utf-8")

    def close(self) -> None:
        """Draws the curves."""
        if self._board is not None:
            self._board.close()
        if self._rows:
            write_picture(self._folder / CURVES, curves(self._rows))


def write_picture(path: Path, picture: Picture) -> None:
    """Writes (H, W, 3) uint8 RGB as PNG."""
    _, data = cv2.imencode(".png", picture[:, :, ::-1])
    with atomic_write(path) as part:
        part.write_bytes(data.tobytes())


def curves(rows: list[dict[str, Any]]) -> Picture:
    """A panel for the sum of the losses and one for every score, over steps: (H, W, 3) uint8."""
    names = list(dict.fromkeys(name for row in rows for name in row if name == "loss" or name.startswith("val/")))
    panels = [_panel(name, *_series(rows, name), _COLOURS[i % len(_COLOURS)]) for i, name in enumerate(names)]
    if len(panels) % 2:
        panels.append(np.full_like(panels[0], 255))
    return np.concatenate([np.concatenate(panels[i : i + 2], axis=1) for i in range(0, len(panels), 2)])


def _series(rows: list[dict[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = [(float(row["step"]), float(row[name])) for row in rows if row.get(name) not in (None, "")]
    steps, values = np.array(pairs).T
    return steps, values


def _panel(name: str, steps: NDArray[np.float64], values: NDArray[np.float64], colour: tuple[int, int, int]) -> Picture:
    panel = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    low, high = float(values.min()), float(values.max())
    x = _MARGIN + (_WIDTH - 2 * _MARGIN) * steps / max(steps.max(), 1)
    y = _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (values - low) / max(high - low, 1e-12)
    corners = (_MARGIN, _MARGIN), (_WIDTH - _MARGIN, _HEIGHT - _MARGIN)
    cv2.rectangle(panel, *corners, (210, 210, 210))
    cv2.polylines(panel, [np.rint(np.stack([x, y], axis=1)).astype(np.int32)], False, colour, 2, cv2.LINE_AA)
    places = {name: (_MARGIN, 24), f"{high:.4g}": (2, _MARGIN + 4), f"{low:.4g}": (2, _HEIGHT - _MARGIN + 4)}
    places[f"step {steps.max():.0f}"] = (_WIDTH - 2 * _MARGIN - 30, _HEIGHT - 14)
    for text, place in places.items():
        cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    return panel


def _row(report: Report) -> dict[str, Any]:
    numbers = {
        "rate": report.rate,
        "samples_per_second": report.speed,
        "waiting": report.waiting,
        "loss": sum(report.losses.values()),
        **{f"loss/{name}": value for name, value in report.losses.items()},
        **{f"val/{name}": value for name, value in report.scores.items()},
        **{f"input/{name}": value for name, value in report.plain.items()},
    }
    return {"step": report.step, "stage": report.stage, **{name: float(f"{v:.6g}") for name, v in numbers.items()}}


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _board(folder: Path) -> Any:
    """TensorBoard's writer, None where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
