"""The one family of errors that a user is meant to read: a sentence, a hint, an exit code.

Anything else that is raised is a bug and stays loud.
"""

from importlib import import_module
from types import ModuleType


class HdrError(Exception):
    """What went wrong, in one sentence, with a hint on what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HdrError):
    """The command line asks for something that makes no sense; nothing was done."""

    exit_code = 2


class ReadError(HdrError):
    """An input file cannot be read, or what it holds is not a usable picture."""


class WriteError(HdrError):
    """An output file cannot be written."""


class WeightsError(HdrError):
    """A card or a weight file is missing, damaged, of the wrong network or not to be trusted."""


class MissingExtraError(HdrError):
    """An optional package is needed; the hint names the pip command."""


class WrongStateError(HdrError):
    """Pixels of one state (say sRGB-encoded) were handed to a function that needs another."""


class OutOfMemoryError(HdrError):
    """The picture does not fit, even in the smallest tiles."""


def imported(module: str, who: str, package: str) -> ModuleType:
    """An optional module, needed by `who`; MissingExtraError, which names the pip package, where it is not there."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{who} needs {error.name or module}, which is not installed", hint=f"pip install {package}"
        ) from error
