"""Getting one file from the first of several mirrors that has it: resumed, checked, and renamed only when whole."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from hdrcli import __version__
from hdrcli.cards import digest
from hdrcli.errors import WeightsError, WriteError

Progress = Callable[[int, int], None]
"""Told how many bytes are there, and of how many; 0 where the server does not say."""

LIMIT = 2 * 1024**3  # bytes; the largest published set of weights has about a third of it

_CHUNK = 256 * 1024
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 4  # per mirror, each going on where the last one broke off
_PAUSE = 0.5  # seconds before the second attempt, doubled for each further one


class _RefusedError(Exception):
    """This mirror will not give the file, whatever is tried."""


class _BrokenError(Exception):
    """The connection broke; what has come so far is good."""


def fetch(
    sources: Sequence[str], target: Path, *, sha256: str = "", limit: int = LIMIT, progress: Progress | None = None
) -> str:
    """Downloads `target` from the first of `sources` (http or https URLs) that gives it; returns its SHA-256.

    sha256: what the file must have; "" where nobody knows. limit: the largest size taken, in bytes.
    What a broken download left, also that of an earlier run, is gone on with where the server can do so.
    Raises WeightsError with the reason of each mirror when none gave the file, WriteError when it cannot be stored.
    """
    reasons = []
    for source in sources:
        part = _part(target, sha256 or hashlib.sha256(source.encode()).hexdigest())
        try:
            _download(source, part, limit, progress or _silent)
            return _accept(part, target, sha256)
        except (_RefusedError, _BrokenError) as error:
            reasons.append(f"{urlsplit(source).hostname}: {error}")
    raise WeightsError(f"no mirror gave {target.name}: {'; '.join(reasons) or 'there is none'}")


def _part(target: Path, content: str) -> Path:
    """Where an unfinished download lies; parts of what may be different contents never meet."""
    return target.with_name(f"{target.name}.{content[:8]}.part")


def _accept(part: Path, target: Path, sha256: str) -> str:
    found = digest(part)
    if sha256 and found != sha256:
        part.unlink()
        raise _RefusedError(f"the file is not the expected one, its SHA-256 is {found[:12]}… instead of {sha256[:12]}…")
    part.replace(target)
    return found


def _download(source: str, part: Path, limit: int, progress: Progress) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            return _receive(source, part, limit, progress)
        except _BrokenError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE * 2**attempt)
    return None


def _receive(source: str, part: Path, limit: int, progress: Progress) -> None:
    """One request; appends to `part` what is missing, or starts it anew where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    with _open(source, part, have) as response:
        if response.headers.get_content_type() == "text/html":
            raise _RefusedError("it answers with a web page instead of the file")
        have = _resumed_at(response, part, have)
        total = have + response.length if response.length else 0
        if total > limit:
            raise _RefusedError(f"the file has {total} bytes, more than the {limit} that are allowed")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab" if have else "wb") as file:
                while chunk := _read(response):
                    have += file.write(chunk)
                    if have > limit:
                        raise _RefusedError(f"the file has more than the {limit} bytes that are allowed")
                    progress(have, total)
        except OSError as error:
            raise WriteError(f"cannot write {part}: {error.strerror}", hint="is the disk full?") from error
    if have < total:
        raise _BrokenError(f"the connection broke after {have} of {total} bytes")


def _open(source: str, part: Path, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"hdrcli/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response: http.client.HTTPResponse = _opener().open(
            urllib.request.Request(source, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing is left to be sent, or the part belongs to something else
            raise _cannot_resume(part) from error
        kind = _BrokenError if error.code >= 500 or error.code in (408, 429) else _RefusedError
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _BrokenError(str(getattr(error.reason, "strerror", None) or error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error
    return response


def _resumed_at(response: http.client.HTTPResponse, part: Path, have: int) -> int:
    """The offset of the first byte that the response carries: `have`, or 0 where the server starts again."""
    if response.status != 206:
        return 0
    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise _cannot_resume(part)
    return have


def _cannot_resume(part: Path) -> _BrokenError:
    part.unlink()
    return _BrokenError("it cannot resume the download")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"the connection broke: {error or type(error).__name__}") from error


def _silent(done: int, total: int) -> None:
    pass


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """Follows a redirect, but never to a less safe scheme."""
        if urlsplit(newurl).scheme not in ({"https"} if req.type == "https" else {"http", "https"}):
            raise _RefusedError(f"it redirects to an unsafe address, {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Speaks http and https only: a redirect cannot reach a local file or another protocol."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
