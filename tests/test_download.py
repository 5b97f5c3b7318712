"""Downloads from a server on this machine that misbehaves as asked."""

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from webserver import serving

from hdrcli import download
from hdrcli.errors import WeightsError, WriteError

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Mirror(ThreadingHTTPServer):
    """Serves BODY at every path; the first word of a path says what goes wrong there.

    requests: the path and Range header of each request, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.body = BODY

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.requests.append((self.path, asked))
        getattr(self, self.path.strip("/").split("/")[0])(asked)

    def plain(self, asked: str | None) -> None:
        self._send(self._start(asked))

    def breaking(self, asked: str | None) -> None:
        """Breaks off after 300 kB, at every second request."""
        self._send(self._start(asked), most=300_000 if len(self.server.requests) % 2 else None)

    def dying(self, asked: str | None) -> None:
        """Breaks off after 100 kB, always."""
        self._send(self._start(asked), most=100_000)

    def forgetful(self, asked: str | None) -> None:
        """Knows no ranges and breaks off once."""
        self._send(0, most=300_000 if len(self.server.requests) == 1 else None)

    def shifted(self, asked: str | None) -> None:
        """Resumes somewhere else than asked, the first time."""
        start = self._start(asked)
        self._send(start, says=start + 1 if asked and len(self.server.requests) == 1 else None)

    def full(self, asked: str | None) -> None:
        """Has nothing left to send to whoever asks for a range."""
        if asked:
            self.send_error(416)
        else:
            self._send(0)

    def endless(self, asked: str | None) -> None:
        """Does not say how much there is."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.body)

    def missing(self, asked: str | None) -> None:
        self.send_error(404)

    def busy(self, asked: str | None) -> None:
        """Is busy once."""
        if len(self.server.requests) == 1:
            self.send_error(503)
        else:
            self._send(0)

    def page(self, asked: str | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<html>Too many have viewed or downloaded this file</html>")

    def moved(self, asked: str | None) -> None:
        self._redirect(self.server.url("plain/file"))

    def to_disk(self, asked: str | None) -> None:
        self._redirect("file:///etc/hostname")

    def loop(self, asked: str | None) -> None:
        self._redirect(self.server.url("loop"))

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _start(self, asked: str | None) -> int:
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0

    def _redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def _send(self, start: int, most: int | None = None, says: int | None = None) -> None:
        body = self.server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            first = start if says is None else says
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(self.server.body)}")
        self.end_headers()
        self.wfile.write(body[:most])


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Mirror()
    with serving(server):
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "weights.bin"


def only(target: Path) -> bytes:
    """The file, if nothing else was left beside it."""
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]
    return target.read_bytes()


def test_a_file_arrives_whole_and_its_hash_is_told(mirror: Mirror, target: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = download.fetch([mirror.url("plain")], target, progress=lambda done, total: seen.append((done, total)))
    assert found == SHA256
    assert only(target) == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_a_broken_download_is_gone_on_with(mirror: Mirror, target: Path) -> None:
    assert download.fetch([mirror.url("breaking")], target, sha256=SHA256) == SHA256
    assert only(target) == BODY
    assert mirror.ranges() == [None, "bytes=300000-"]


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_a_later_run_goes_on_where_the_last_one_stopped(mirror: Mirror, target: Path, sha256: str) -> None:
    with pytest.raises(WeightsError, match="connection broke after 400000 of 1048576 bytes"):
        download.fetch([mirror.url("dying")], target, sha256=sha256)
    assert not target.exists()
    (part,) = target.parent.iterdir()
    assert part.stat().st_size == 400_000
    with pytest.raises(WeightsError, match="after 800000 of"):
        download.fetch([mirror.url("dying")], target, sha256=sha256)
    download.fetch([mirror.url("dying")], target, sha256=sha256)
    assert only(target) == BODY


def test_a_part_is_shared_by_mirrors_only_if_the_hash_is_known(mirror: Mirror, target: Path) -> None:
    sources = [mirror.url("dying"), mirror.url("plain")]
    download.fetch(sources, target, sha256=SHA256)
    assert mirror.requests[-1] == ("/plain", "bytes=400000-")
    target.unlink()
    download.fetch(sources, target)
    assert mirror.requests[-1] == ("/plain", None)
    assert target.read_bytes() == BODY


def test_a_server_without_ranges_starts_again(mirror: Mirror, target: Path) -> None:
    download.fetch([mirror.url("forgetful")], target, sha256=SHA256)
    assert only(target) == BODY
    assert mirror.ranges() == [None, "bytes=300000-"]


@pytest.mark.parametrize("fault", ["shifted", "full"])
def test_a_resume_that_does_not_fit_starts_again(mirror: Mirror, target: Path, fault: str) -> None:
    part = target.parent / f"{target.name}.{SHA256[:8]}.part"
    part.parent.mkdir()
    part.write_bytes(BODY[:1000])
    download.fetch([mirror.url(fault)], target, sha256=SHA256)
    assert only(target) == BODY
    assert mirror.ranges() == ["bytes=1000-", None]


def test_a_wrong_hash_is_refused_and_nothing_stays(mirror: Mirror, target: Path) -> None:
    mirror.body = BODY[:-1] + b"!"
    with pytest.raises(WeightsError, match="not the expected one, its SHA-256 is"):
        download.fetch([mirror.url("plain")], target, sha256=SHA256)
    assert list(target.parent.iterdir()) == []


def test_a_wrong_hash_leads_to_the_next_mirror(mirror: Mirror, target: Path) -> None:
    other = Mirror()
    other.body = b"something else"
    with serving(other):
        download.fetch([other.url("plain"), mirror.url("plain")], target, sha256=SHA256)
    assert only(target) == BODY


@pytest.mark.parametrize("fault", ["missing", "page", "to_disk", "loop"])
def test_a_mirror_that_refuses_is_asked_once_and_the_next_one_serves(mirror: Mirror, target: Path, fault: str) -> None:
    download.fetch([mirror.url(fault), mirror.url("plain")], target)
    assert only(target) == BODY
    asked = [path for path, _ in mirror.requests]
    assert asked.count("/plain") == 1
    assert fault == "loop" or asked == [f"/{fault}", "/plain"]


def test_a_server_that_is_down_leads_to_the_next_mirror(mirror: Mirror, target: Path) -> None:
    with Mirror() as gone:
        dead = gone.url("plain")
    download.fetch([dead, mirror.url("plain")], target)
    assert only(target) == BODY


def test_a_busy_server_is_asked_again(mirror: Mirror, target: Path) -> None:
    download.fetch([mirror.url("busy")], target)
    assert only(target) == BODY


def test_a_redirect_is_followed(mirror: Mirror, target: Path) -> None:
    download.fetch([mirror.url("moved")], target, sha256=SHA256)
    assert only(target) == BODY
    assert [path for path, _ in mirror.requests] == ["/moved", "/plain/file"]


@pytest.mark.parametrize("fault", ["plain", "endless"])
def test_a_file_that_is_too_large_is_refused(mirror: Mirror, target: Path, fault: str) -> None:
    with pytest.raises(WeightsError, match=r"more than the .* allowed"):
        download.fetch([mirror.url(fault)], target, limit=1000)
    assert not target.exists()


def test_a_size_that_is_not_told_is_fine(mirror: Mirror, target: Path) -> None:
    seen: list[tuple[int, int]] = []
    download.fetch([mirror.url("endless")], target, progress=lambda done, total: seen.append((done, total)))
    assert only(target) == BODY
    assert seen[-1] == (len(BODY), 0)


def test_when_all_fail_each_reason_is_told(mirror: Mirror, target: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        download.fetch([mirror.url("missing"), mirror.url("page")], target)
    message = caught.value.message
    assert message.startswith("no mirror gave weights.bin: ")
    assert "127.0.0.1: HTTP 404" in message
    assert "a web page instead of the file" in message


@pytest.mark.parametrize("source", ["ftp://127.0.0.1/x", "file:///etc/hostname"])
def test_other_protocols_are_refused(mirror: Mirror, target: Path, source: str) -> None:
    with pytest.raises(WeightsError, match="unknown url type"):
        download.fetch([source], target)


def test_an_existing_file_stays_until_the_new_one_is_whole(mirror: Mirror, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(WeightsError):
        download.fetch([mirror.url("dying")], target)
    assert target.read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_a_write_error(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot write"):
        download.fetch([mirror.url("plain")], tmp_path / "file" / "weights.bin")
