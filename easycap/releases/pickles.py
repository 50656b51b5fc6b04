"""Pickles read as plain data: nothing that a file names is imported or called.

A pickle is a program that may call any function. Here a name in it becomes a class made on the spot, which cannot be
called; an object of it keeps what was stored of it as data. The few functions without which no weights can be read
(tensors, dicts of collections, numpy's numbers) have stand-ins of ours.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from easycap.errors import UserError
from easycap.utils.hub import shortened
from easycap.utils.text import printable


class Refused(UserError):
    """A pickle that asks for more than data."""


class _Kind(type):
    """The class of stand-in classes: they cannot be called, so that no name of a pickle is."""

    path: str

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise Refused(f"it would call {cls.path}")


class Opaque(metaclass=_Kind):
    """An object of a class that was not imported: `path` is the class's name, `args` what it was made with, `state`
    what was stored of it.
    """

    path = "object"
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_kwargs: Any) -> Opaque:
        """What pickles call in the place of the class."""
        made = object.__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """What a subclass of dict holds counts as its attributes."""
        self.state = {**(self.state or {}), key: value}

    def get(self, name: str) -> Any:
        """Return a stored attribute, None if there is none."""
        return self.state.get(name) if isinstance(self.state, dict) else None


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers that lie elsewhere in the file: their `kind` (FloatStorage), the `key` of the place, and how many."""

    kind: str
    key: str
    count: int

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("it would change a storage")


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage, as the file describes it; nothing of it has been checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any

    def __setstate__(self, state: Any) -> None:
        """What may follow a tensor (hooks, attributes) is left out."""


class _Dict(dict[Any, Any]):
    """Stands for collections' dicts; attributes stored with one are left out."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None: ...


class _Allowed:
    """A function of ours in the place of one that a pickle names. Pickles can neither see nor change it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("it would change a function")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    return StoredTensor(storage, offset, size, stride)


def _reconstructor(kind: Any, _base: Any, _state: Any) -> Opaque:
    if not isinstance(kind, _Kind):
        raise Refused("it would make an object of something that is not a class")
    made: Any = kind
    return Opaque.__new__(made)


def _bytes(text: Any, _encoding: Any = None) -> bytes:
    """As Python 3 stores bytes for Python 2: each is a letter."""
    if not isinstance(text, str):
        raise Refused("it would make bytes of something that is not text")
    return text.encode("latin-1")


_PLAIN = (str, bytes, int, float, bool, type(None))


def _checked(key: Any) -> Any:
    """Return a key of a dict or set; the hash of tuples that share nested ones takes exponential time."""
    if isinstance(key, tuple | frozenset) and not all(type(part) in _PLAIN for part in key):
        raise Refused("a key of it is a nested tuple")
    return key


def _dict(items: Any = ()) -> _Dict:
    return _Dict(items if isinstance(items, dict) else [(_checked(key), value) for key, value in items])


def _record(path: str) -> _Allowed:
    """Of numpy's arrays and numbers nothing is needed but that they are there."""
    return _Allowed(lambda *args: Opaque.__new__(_stand_in(path), *args))


def _stand_in(path: str) -> Any:
    return _Kind(path.rpartition(".")[2] or "object", (Opaque,), {"path": path})


_NUMPY = ("_reconstruct", "scalar")
_ALLOWED: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _Allowed(_tensor),
    "torch._utils._rebuild_tensor_v2": _Allowed(_tensor),
    "torch._utils._rebuild_parameter": _Allowed(lambda data, *_: data),
    "torch.nn.parameter.Parameter": _Allowed(lambda data=None, *_: data),
    "torch.Size": _Allowed(lambda size=(): tuple(size)),
    "collections.OrderedDict": _Allowed(_dict),
    "collections.Counter": _Allowed(_dict),
    "collections.defaultdict": _Allowed(lambda _factory=None, items=(): _dict(items)),
    "builtins.set": _Allowed(lambda items=(): set(map(_checked, items))),
    "builtins.frozenset": _Allowed(lambda items=(): frozenset(map(_checked, items))),
    "copyreg._reconstructor": _Allowed(_reconstructor),
    "_codecs.encode": _Allowed(_bytes),
    "builtins.bytes": _Allowed(lambda: b""),
    "numpy.dtype": _record("numpy.dtype"),
    # what modules of torch 0.4 hold, and is not needed
    "torch.nn.backends.thnn._get_thnn_function_backend": _record("torch.nn.backends"),
    **{
        f"numpy.{core}.multiarray.{name}": _record(f"numpy.{name}")
        for core in ("core", "_core")
        for name in _NUMPY
    },
}
# Python 2's names of modules.
_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins"}


# The unpickler written in Python: that in C allots what a number in the file asks for, which may be all memory.
_Base: Any = pickle._Unpickler  # whose stubs lack its stack and most of its steps


class _Unpickler(_Base):
    def find_class(self, module: str, name: str) -> Any:
        path = f"{_MODULES.get(module, module)}.{name}"
        return _ALLOWED.get(path) or _stand_in(path)

    def load_setitem(self) -> None:
        _checked(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._check(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        self._check(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        self._check(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        self._check(self.stack)
        super().load_frozenset()

    @staticmethod
    def _check(keys: Iterable[Any]) -> None:
        for key in keys:
            _checked(key)

    # by opcode
    dispatch = _Base.dispatch | {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
    }

    def persistent_load(self, saved: Any) -> Any:
        """torch's reference to numbers that lie elsewhere, or to a module's class with its source code, left out."""
        if (
            isinstance(saved, tuple)
            and len(saved) == 4
            and saved[0] == "module"
            and isinstance(saved[1], _Kind)
        ):
            return saved[1]
        if isinstance(saved, tuple) and len(saved) in (5, 6) and saved[0] == "storage":
            kind, key, _device, count, *view = saved[1:]
            named = isinstance(kind, _Kind) and kind.path.startswith("torch.")
            if named and isinstance(key, str) and isinstance(count, int) and not any(view):
                return Storage(kind.path.rpartition(".")[2], key, count)
        raise Refused("it refers to numbers in an unknown way")


def unpickle(file: IO[bytes], path: Path) -> Any:
    """Return the next pickle of a file as plain data and `Opaque` objects.

    Raises `UserError` if it asks for more than data, is cut off or is not a pickle.
    """
    try:
        return _Unpickler(file, encoding="latin-1").load()
    except Refused as error:
        why = printable(shortened(str(error)))
        raise UserError(f"{path} was not read because it contains more than data: {why}") from None
    except EOFError:
        raise UserError(f"{path} is cut off: download it again") from None
    except Exception as error:  # a damaged pickle raises whatever its parsing stumbles on
        reason = shortened(f"{type(error).__name__}: {error}", 120)
        raise UserError(f"{path} is damaged, or not a pickle ({reason})") from None
