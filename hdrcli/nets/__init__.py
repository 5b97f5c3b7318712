"""One file per network; the folder is the registry.

A file `nets/NAME.py` without a leading underscore is the network NAME and exposes one `NetSpec` as SPEC.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from hdrcli.errors import UsageError

if TYPE_CHECKING:
    from hdrcli.network import NetSpec


def names() -> list[str]:
    """The networks that exist, without importing any of them."""
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def spec(name: str) -> "NetSpec":
    """The SPEC of network `name`; imports that one file."""
    if name not in names():
        raise UsageError(f"there is no network named {name!r}", hint="networks: " + ", ".join(names()))
    found: NetSpec = import_module(f"{__name__}.{name}").SPEC
    return found
