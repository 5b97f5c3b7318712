"""hdr gives pictures their light back.

hdrcli.expand(path_or_array)   an ordinary picture to linear light
hdrcli.develop(path)           a RAW file to a finished picture
hdrcli.load_model(name)        a model that both take, to load it once
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdrcli.tasks.develop import develop
    from hdrcli.tasks.expand import expand
    from hdrcli.zoo import load as load_model

__version__ = "0.1.0"

__all__ = ["__version__", "develop", "expand", "load_model"]

_PLACES = {
    "develop": ("hdrcli.tasks.develop", "develop"),
    "expand": ("hdrcli.tasks.expand", "expand"),
    "load_model": ("hdrcli.zoo", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function = _PLACES[name]
    return getattr(import_module(module), function)
