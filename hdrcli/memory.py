"""How much memory there is, and how much a network takes for each pixel of a tile."""

import ctypes
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock, RLock
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hdrcli.heap import glibc

_LITTLE = 256 << 20  # bytes; small pictures, one after the other, do without new pages
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of mallopt(3)

_holding, _holders = Lock(), 0  # contexts that keep memory


def free(device: torch.device) -> int:
    """Bytes that a device can still give."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available: int = psutil.virtual_memory().available
    return available


@contextmanager
def kept() -> Iterator[None]:
    """While inside, memory that is freed is used again; the system gets it back in the end, unless it is little.

    Otherwise each large tensor has new pages, which take as long to come by as a layer does to compute. Of contexts
    within each other, also in other threads, the last one ends it. With glibc alone.
    """
    global _holders
    libc = glibc()
    if libc is None:
        yield
        return
    with _holding:
        _holders += 1
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _holding:
            _holders -= 1
            if not _holders:
                libc.mallopt(_MMAP_MAX, 65536)  # from here on what glibc does by itself once a large array was freed
                libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
                libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
                if _unused(libc) > _LITTLE:
                    give_back()


def give_back() -> None:
    """Returns to the system what is free. With glibc alone."""
    if libc := glibc():
        libc.malloc_trim(0)


def _unused(libc: ctypes.CDLL) -> int:
    """Bytes in glibc's heap that are free; a great many before glibc 2.33, which cannot say."""
    if not hasattr(libc, "mallinfo2"):
        return 2**63
    libc.mallinfo2.restype = _Mallinfo2
    return int(libc.mallinfo2().fordblks)


class _Mallinfo2(ctypes.Structure):
    """See mallinfo(3)."""

    _fields_ = (("others", ctypes.c_size_t * 8), ("fordblks", ctypes.c_size_t), ("keepcost", ctypes.c_size_t))


def peak(work: Callable[[], object]) -> int:
    """The most bytes that tensors made by `work` hold at one time; what its operators need besides is not counted."""
    global _ledger
    _ledger = ledger = _Ledger()
    try:
        with counted():
            work()
    finally:
        _ledger = None
    return ledger.most


def counted() -> AbstractContextManager[object]:
    """Inside, the tensors that this thread makes count for `peak`, if that is at work."""
    return _Counted(_ledger) if _ledger else nullcontext()


class _Ledger:
    """The bytes of all tensors that are still there, and the most that they were."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._alive: set[int] = set()
        self._lock = RLock()

    def count(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        with self._lock:
            if name not in self._alive:
                self._alive.add(name)
                self._now += size
                self.most = max(self.most, self._now)
                weakref.finalize(storage, self._forget, name, size)

    def _forget(self, name: int, size: int) -> None:
        with self._lock:
            self._alive.discard(name)
            self._now -= size


_ledger: _Ledger | None = None


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts all tensors that a thread makes while it is on."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._ledger.count(tensor.untyped_storage())
        return made
