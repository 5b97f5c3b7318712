"""The report is one page that needs nothing from outside, and its exposure slider works in a real browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np
import pytest
from standins import known_model
from webserver import serving

from hdrcli import zoo
from hdrcli.color import srgb_encode
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.protocols import PROTOCOLS, Pair
from hdrcli.tasks import report, shots
from hdrcli.tasks.datasets import Loaded, Sample
from hdrcli.tasks.evaluate import Plan, evaluate
from hdrcli.tasks.results import Evaluation

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PROBE = """
<script>
async function middle(canvas) {
  const size = [canvas.width / 2, canvas.height / 2];
  return Array.from(canvas.getContext("2d").getImageData(...size, 1, 1).data).slice(0, 3);
}
const pause = (time) => new Promise((done) => setTimeout(done, time));
(async function () {
  const canvas = document.querySelector("canvas"), found = { exposures: {} };
  const slider = document.querySelector("#exposure input");
  if (document.readyState !== "complete") await new Promise((done) => addEventListener("load", done));
  while ((await middle(canvas)).every((value) => value === 0)) await pause(100);
  for (const stops of [0, -2, 2]) {
    slider.value = stops;
    slider.dispatchEvent(new Event("input"));
    await pause(300);
    found.exposures[stops] = await middle(canvas);
  }
  document.querySelector("#exposure button[value='-4']").click();
  await pause(300);
  found.exposures["-4"] = await middle(canvas);
  found.label = document.querySelector("#exposure output").textContent;
  const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  found.outside = fetched.filter((name) => !name.startsWith("data:"));
  await fetch("found", { method: "POST", body: JSON.stringify(found) });
})();
</script>
"""


def light(level: float, seed: int = 0) -> np.ndarray:
    """A grey ramp around `level` with a bright corner."""
    y, x = np.mgrid[0:60, 0:80]
    picture = np.full((60, 80, 3), level, np.float32)
    picture[(x > 60) & (y < 20)] = 4
    return (picture * np.random.default_rng(seed).uniform(0.98, 1.02, picture.shape)).astype(np.float32)


def evaluation(name: str = "a<b>", count: int = 2) -> Evaluation:
    def load(seed: int) -> Loaded:
        wanted = light(0.18, seed)
        encoded = srgb_encode(np.clip(wanted, 0, 1))
        source = Image(encoded, Transfer.SRGB)
        return Loaded(wanted, wanted.max(axis=2) > 1, np.minimum(wanted, 1), source, notes=("made & counted",))

    samples = [Sample(f"{name}{i}", lambda i=i: load(i), f"{name}{i}", "clean") for i in range(count)]
    chosen = PROTOCOLS["hanji"]
    models: dict[str, zoo.Model] = {"known": known_model("expand")}
    plan = Plan(chosen, chosen.metrics((), ("vsi",)), models, Compute(device="cpu"))
    keep = shots.KEEP[chosen.holds]
    return Evaluation("hanji", "test data", plan, list(evaluate(samples, plan, workers=1, keep=keep)))


def test_the_page_holds_everything_itself(tmp_path: Path) -> None:
    page = report.write_report(evaluation(), tmp_path / "new" / "folder")
    text = page.read_text(encoding="utf-8")
    assert page.name == "index.html" and (page.parent / "scores.csv").read_text().count("\n") == 5
    links = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)|url\(([^)]*)\)""", text)
    assert links and all(first.startswith("data:image/jpeg;base64,") for first, _ in links)
    assert not re.search(r"https?:|@import|fetch\(|XMLHttpRequest", text)
    for words in ("PU21-PSNR", "10000 cd/m2", "test data", "95 %", "<svg", "a&lt;b&gt;0 (clean)", "made &amp; counted"):
        assert words in text
    assert "a<b>" not in text and text.count("<canvas") == 2 * 3 and text.count('class="error"') == 2 * 2


def test_only_the_worst_pictures_are_shown_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "SHOWN", 1)
    text = report.html(evaluation())
    assert "1 of 2 pictures" in text and text.count("<h3>") == 1


def test_codes_and_false_colours_mean_what_the_page_says() -> None:
    reference = light(0.2)
    prediction = reference.copy()
    prediction[:30] *= 16
    prediction[30:] /= 16
    found = shots.linear_shots({"x": Pair(prediction, reference, reference[..., 0] > 1)})
    codes = shots._codes(reference, found.low, found.high)
    np.testing.assert_allclose(np.log2(reference), found.low + codes / 255 * (found.high - found.low), atol=0.06)
    errors = shots._false_colours(prediction, reference, np.float32(1e-4))
    assert tuple(errors[0, 0]) == shots.COLOURS[-1] and tuple(errors[-1, 0]) == shots.COLOURS[0]
    equal = shots._false_colours(reference, reference, np.float32(1e-4))
    assert (equal == shots.COLOURS[2]).all()


def test_pictures_of_the_display_protocol_are_shown_too() -> None:
    reference = srgb_encode(light(0.3).clip(0, 1))
    found = shots.display_shots({"x": Pair(reference, reference, reference[..., 0] > 1)})
    assert list(found.light) == ["reference", "x"] and list(found.errors) == ["x"] and abs(found.high) < 0.05


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """The address of a report with the probe, and where what the probe found arrives."""
    html = report.html(evaluation()).replace("<head>", '<head><link rel="icon" href="data:,">')
    page = html.replace("</body>", PROBE + "</body>").encode()
    found: Queue[dict[str, Any]] = Queue()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self) -> None:
            found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Page)) as address:
        yield address, found


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_the_exposure_slider_works_in_a_browser(shown: tuple[str, Queue[dict[str, Any]]], tmp_path: Path) -> None:
    address, arrived = shown
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1400,6000", "--remote-debugging-port=0", address]
    with (tmp_path / "log").open("w+b") as log, subprocess.Popen(command, stdout=log, stderr=log) as browser:
        try:
            found = arrived.get(timeout=100)
        except Empty:
            log.seek(0)
            pytest.fail(f"the page reported nothing: {log.read()[-2000:].decode(errors='replace')}")
        finally:
            browser.terminate()
    assert found["outside"] == [] and found["label"] == "-4 EV"
    for stops, shown_as in found["exposures"].items():
        expected = 255 * float(srgb_encode(np.array(min(0.18 * 2.0 ** float(stops), 1), np.float32)))
        assert np.allclose(shown_as, expected, atol=max(8, 0.06 * expected)), (
            f"{stops} EV: {shown_as}, expected {expected:.0f}"
        )
