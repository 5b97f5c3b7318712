"""An evaluation as one HTML page that needs nothing from outside, and a CSV file beside it."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files as resources
from pathlib import Path
from string import Template

import numpy as np

from hdrcli.files import atomic_write
from hdrcli.protocols import METRICS
from hdrcli.tasks import shots, summary
from hdrcli.tasks.evaluate import Row, Scored
from hdrcli.tasks.results import Evaluation, write_csv
from hdrcli.tasks.summary import number

SHOWN = 60  # pictures at most
_WIDTH, _LEFT, _LANE = 460, 150, 34  # of a plot, of its labels, of the dots of one system, in pixels


def write_report(result: Evaluation, folder: Path) -> Path:
    """Writes index.html and scores.csv to `folder`, made where it is missing, and returns the page."""
    page = folder / "index.html"
    text = html(result)
    with atomic_write(page) as part:
        part.write_text(text, encoding="utf-8")
    write_csv(result, folder / "scores.csv")
    return page


def html(result: Evaluation) -> str:
    """The page."""
    chosen = _chosen(result)
    total = len(result.scored)
    template = Template(resources("hdrcli.tasks").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(result.protocol),
        base=escape(summary.first_system(result.rows) or ""),
        facts="".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in result.facts.items()),
        notes=_notes(result),
        means=_means(result),
        differences=_differences(result),
        plots="".join(_plot(result.rows, metric) for metric in result.plan.metrics),
        worst=_worst(result),
        shown=f"{len(chosen)} of {total} pictures, the worst of each score among them." if len(chosen) < total else "",
        reach=shots.REACH,
        colours=", ".join(f"rgb{colour}" for colour in shots.COLOURS),
        pictures="".join(_pictures(one, result.plan.metrics[0]) for one in chosen),
        rows=_rows(result),
    )


def _notes(result: Evaluation) -> str:
    lines = [*result.notes, *(f"{one.sample.name} failed: {one.error}" for one in result.failed)]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """An HTML table; the first `words` columns hold text, the others numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' if index < words else "" for index in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True)) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(heads, 'th')}</thead><tbody>{body}</tbody></table>"


def _heads(result: Evaluation, *words: str) -> list[str]:
    return [*words, *(METRICS[name].label for name in result.plan.metrics)]


def _means(result: Evaluation) -> str:
    rows = [
        [system, group, *(number(summary.mean(result.rows, system, group, m).value, m) for m in result.plan.metrics)]
        for system in summary.systems(result.rows)
        for group in summary.groups(result.rows)
    ]
    return _table(_heads(result, "system", "pictures"), rows, words=2)


def _differences(result: Evaluation) -> str:
    base = summary.first_system(result.rows)
    rows = [
        [system, *(summary.in_words(summary.difference(result.rows, system, base, m), m) for m in result.plan.metrics)]
        for system in summary.systems(result.rows)
        if base and system != base
    ]
    return _table(_heads(result, "system"), rows, words=1)


def _worst(result: Evaluation) -> str:
    rows = [
        [system, METRICS[name].label, ", ".join(f"{summary.label(r)} {number(r.scores[name], name)}" for r in worst)]
        for system in summary.systems(result.rows)
        for name in result.plan.metrics
        if (worst := summary.worst(result.rows, system, name))
    ]
    return _table(["system", "score", "worst first"], rows, words=3)


def _rows(result: Evaluation) -> str:
    rows = [
        [summary.label(row), row.system, *(number(row.scores[m], m) for m in result.plan.metrics)]
        for row in result.rows
    ]
    return _table(_heads(result, "picture", "system"), rows, words=2)


def _plot(rows: Sequence[Row], metric: str) -> str:
    """An SVG with one lane of dots per system, their median as a bar."""
    values = {
        system: [row.scores[metric] for row in rows if row.system == system and math.isfinite(row.scores[metric])]
        for system in summary.systems(rows)
    }
    every = [value for lane in values.values() for value in lane]
    if not every:
        return ""
    low, high = min(every), max(every)
    span = (high - low) or 1.0

    def across(value: float) -> float:
        return _LEFT + (value - low) / span * (_WIDTH - _LEFT - 20) + 8

    height = 40 + _LANE * len(values)
    parts = [f'<text x="0" y="14" font-weight="600">{escape(METRICS[metric].label)}</text>']
    for lane, (system, scores) in enumerate(values.items()):
        middle = 26 + _LANE * (lane + 0.5)
        colour = "var(--other)" if lane == 0 else "var(--dot)"
        parts.append(f'<text x="0" y="{middle + 4:.0f}">{escape(system[:22])}</text>')
        for index, value in enumerate(scores):
            y = middle + (index * 0.618 % 1 - 0.5) * _LANE * 0.6
            parts.append(f'<circle cx="{across(value):.1f}" cy="{y:.1f}" r="2.5" fill="{colour}" fill-opacity="0.6"/>')
        if scores:
            x = across(float(np.median(scores)))
            parts.append(f'<path d="M{x:.1f} {middle - 13:.1f}v26" stroke="currentColor" stroke-width="2"/>')
    for value, anchor in ((low, "start"), (high, "end")):
        text = number(value, metric)
        parts.append(f'<text x="{across(value):.1f}" y="{height - 2}" text-anchor="{anchor}">{text}</text>')
    body = "".join(parts)
    return f'<figure><svg width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">{body}</svg></figure>'


def _chosen(result: Evaluation) -> list[Scored]:
    """At most SHOWN pictures in their order: the worst of each score first, then whatever comes."""
    worst = {
        (row.image, row.group)
        for system in summary.systems(result.rows)
        for name in result.plan.metrics
        for row in summary.worst(result.rows, system, name)
    }
    pictured = [one for one in result.scored if one.pictures is not None]
    ranked = sorted(pictured, key=lambda one: (one.sample.name, one.sample.group) not in worst)
    kept = {id(one) for one in ranked[:SHOWN]}
    return [one for one in pictured if id(one) in kept]


def _pictures(one: Scored, metric: str) -> str:
    """The reference and every system, with the error and one score under it."""
    label, scores = METRICS[metric].label, {row.system: number(row.scores[metric], metric) for row in one.rows}
    found = one.pictures
    assert found is not None
    figures = []
    for name, light in found.light.items():
        canvas = f'<canvas data-low="{found.low:.4f}" data-high="{found.high:.4f}"><img src="{light}" alt=""></canvas>'
        error = found.errors.get(name)
        caption = f"{name}: {label} {scores[name]}" if name in scores else name
        map_ = f'<img class="error" src="{error}" loading="lazy" alt="error of {escape(name)}">' if error else ""
        figures.append(f"<figure>{canvas}{map_}<figcaption>{escape(caption)}</figcaption></figure>")
    title = f"{one.sample.name} ({one.sample.group})" if one.sample.group else one.sample.name
    return f'<h3>{escape(title)}</h3><div class="pictures">{"".join(figures)}</div>'
