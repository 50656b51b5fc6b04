"""Pickles that ask for more than data: each is refused in one sentence, and nothing of it is called or imported."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import pytest
import torch
from helpers.released_files import own_module

from easycap.errors import UserError
from easycap.releases.pickles import Opaque, unpickle
from easycap.releases.torch_files import read_released

CALLED: list[str] = []


def danger(*_: object) -> str:
    CALLED.append("danger")
    return "harm"


def name_of(function: str) -> bytes:
    """GLOBAL: a function of this module."""
    return f"c{__name__}\n{function}\n".encode()


REDUCED = b"\x80\x02" + name_of("danger") + b"(tR."
SHORT = b"\x8c\x02os\x8c\x06system\x93"  # os.system by STACK_GLOBAL
# 60 tuples, each of which holds the one before twice: to hash the last takes 2^60 steps.
NESTED = b"I1\n" + b"2\x86" * 60
HOSTILE = {
    "a nested key": b"\x80\x02}" + NESTED + b"Ns.",
    "nested keys": b"\x80\x02}(" + NESTED + b"Nu.",
    "nested keys of an early dict": b"\x80\x02(" + NESTED + b"Nd.",
    "a nested member of a set": b"\x80\x04\x8f(" + NESTED + b"\x90.",
    "a nested member of a frozenset": b"\x80\x04(" + NESTED + b"\x91.",
    "a nested member of an early set": b"\x80\x02c__builtin__\nset\n](" + NESTED + b"e\x85R.",
    "a nested key of an ordered dict": b"\x80\x02ccollections\nOrderedDict\n](" + NESTED + b"N\x86e\x85R.",
    "bytes of nested tuples": b"\x80\x02c_codecs\nencode\n(" + NESTED + b"tR.",
    "a name of two lines": b"\x80\x04\x8c\x01a\x8c\x03b\nc\x93)R.",
    "a function by REDUCE": REDUCED,
    "os.system": b"cos\nsystem\n(S'touch harm'\ntR.",
    "STACK_GLOBAL": b"\x80\x04" + SHORT + b"\x8c\x0atouch harm\x85R.",
    "INST": b"(S'touch harm'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch harm'\no.",
    "builtins.eval": b"cbuiltins\neval\n(S'CALLED.append(1)'\ntR.",
    "getattr, then the method": b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'touch harm'\ntR.",
    "a dotted name": b"\x80\x04\x8c\x02os\x8c\x0bpath.system\x93\x8c\x01x\x85R.",
    "torch.storage._load_from_bytes": b"ctorch.storage\n_load_from_bytes\n(S'x'\ntR.",
    "torch.hub": b"ctorch.hub\nload\n(S'a/b'\nS'c'\ntR.",
    "a changed function of ours": b"ccollections\nOrderedDict\n}S'_make'\nI0\nsb.",
    "an object's method by a name": b"c__main__\nA.b\n(tR.",
    "_reconstructor of a function": b"ccopyreg\n_reconstructor\n(ccollections\nOrderedDict\nI0\nNtR.",
    "an unknown persistent id": b"Sthing\n",
    "a persistent id of another type": b"I7\nQ.",
    "a memo of 4 billion places": b"\x80\x02]r\xff\xff\xff\xffh\x05.",
    "a bytearray of a terabyte": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
    "an extension code": b"\x80\x02\x82\x01.",
    "cut off": pickle.dumps({"a": list(range(100))})[:40],
    "nothing to return": b"\x80\x02.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles_are_refused_and_nothing_is_called(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    CALLED.clear()
    path = tmp_path / "some.pkl"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(UserError) as raised, path.open("rb") as file:
        unpickle(file, path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)
    assert not CALLED and not (tmp_path / "harm").exists()


def test_the_function_that_would_be_called_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.pkl"
    path.write_bytes(HOSTILE["os.system"])
    with pytest.raises(UserError, match="contains more than data: it would call os.system"):
        read_released(path)


class Harmful:
    """Its state would run code, were the class imported."""

    def __init__(self) -> None:
        self.kept = 3

    def __setstate__(self, state: object) -> None:
        danger()


def load(content: object, protocol: int = 2) -> object:
    return unpickle(io.BytesIO(pickle.dumps(content, protocol)), Path("some.pkl"))


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_is_its_state_and_its_class_is_not_imported(protocol: int) -> None:
    CALLED.clear()
    with own_module("nowhere.at_all", Harmful=Harmful):
        stored = pickle.dumps({"one": Harmful()}, protocol)
    found = unpickle(io.BytesIO(stored), Path("some.pkl"))["one"]
    assert isinstance(found, Opaque) and type(found).path == "nowhere.at_all.Harmful"
    assert found.get("kept") == 3 and found.get("other") is None
    assert not CALLED and "nowhere.at_all" not in sys.modules


@pytest.mark.parametrize("protocol", range(6))
def test_containers_are_what_they_were(protocol: int) -> None:
    kept = {"list": [1, 2.5, None, True, b"x", "é"], "tuple": (1, (2,)), "set": {1, 2}}
    ordered, counted = OrderedDict(a=1), defaultdict(int, a=2)
    found = load(kept | {"ordered": ordered, "counted": counted}, protocol)
    assert found == kept | {"ordered": {"a": 1}, "counted": {"a": 2}}


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_both_formats(tmp_path: Path, zipped: bool) -> None:
    whole = torch.randn(4, 6)
    kept = {
        "part": whole[1:3, ::2].t(),
        "whole": whole,
        "half": torch.randn(3).half(),
        "numbers": torch.arange(5),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    path = tmp_path / "some.pth"
    torch.save(OrderedDict(kept), path, _use_new_zipfile_serialization=zipped)
    file = read_released(path)
    found = file.tensors(file.content)
    assert set(found) == set(kept)
    for name, tensor in kept.items():
        assert torch.equal(found[name], tensor.detach()) and found[name].dtype == tensor.dtype


def test_a_state_dict_has_attributes_too(tmp_path: Path) -> None:
    """torch keeps versions of modules as an attribute of the dict."""
    module = torch.nn.BatchNorm1d(3)
    torch.save(module.state_dict(), tmp_path / "some.pth")
    file = read_released(tmp_path / "some.pth")
    found = file.tensors(file.content)
    assert found.keys() == module.state_dict().keys() and torch.equal(found["weight"], module.weight.detach())


def saved(path: Path, content: bytes | None = None, **entries: bytes) -> Path:
    """A file of torch.save with a tensor of 3 numbers, its pickle replaced, and further entries."""
    torch.save({"a": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    root = path.stem
    if content is not None:
        kept[f"{root}/data.pkl"] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (kept | {f"{root}/{name}": data for name, data in entries.items()}).items():
            archive.writestr(name, data)
    return path


class Stored:
    """Pickled as torch refers to a storage."""

    saved = ("storage", torch.FloatStorage, "0", "cpu", 3)


class Rebuilt:
    """Pickled as torch pickles a tensor, whatever its size."""

    def __init__(self, size: tuple[object, ...]) -> None:
        self.size = size

    def __reduce__(self) -> tuple[object, ...]:
        return torch._utils._rebuild_tensor_v2, (Stored(), 0, self.size, (1,) * len(self.size), False, {})


class Pickler(pickle.Pickler):
    def persistent_id(self, one: object) -> object:
        return one.saved if isinstance(one, Stored) else None


@pytest.mark.parametrize("size", [(3,), (2, 2), (1 << 40,), (-1,), ("3",)])
def test_a_tensor_must_fit_its_numbers(tmp_path: Path, size: tuple[object, ...]) -> None:
    written = io.BytesIO()
    Pickler(written, 2).dump({"a": Rebuilt(size)})
    file = read_released(saved(tmp_path / "some.pth", written.getvalue()))
    if size == (3,):
        assert torch.equal(file.tensors(file.content)["a"], torch.zeros(3))
        return
    with pytest.raises(UserError, match="does not fit its numbers"):
        file.tensors(file.content)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty", b"", "is empty"),
        ("page", b"<!DOCTYPE html>", "is text"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1", "is text"),
        ("json", b'{"a": ', "cannot be read: not JSON, or cut off"),
        ("noise", bytes(range(128, 200)), "is damaged, or not a pickle"),
    ],
)
def test_other_files_are_told(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_released(tmp_path / name)
    with pytest.raises(UserError, match="is not a file"):
        read_released(tmp_path / "nowhere")


def test_zip_archives_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="TorchScript"):
        read_released(saved(tmp_path / "some.pth", **{"constants.pkl": b""}))
    with pytest.raises(UserError, match="it would call"):
        read_released(saved(tmp_path / "some.pth", REDUCED))
    whole = saved(tmp_path / "some.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut off or damaged"):
        read_released(tmp_path / "cut.pth")
    torch.save({"a": torch.zeros(3000)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "old.pth").read_bytes()[:-100])
    file = read_released(tmp_path / "cut.pth")
    with pytest.raises(UserError, match="cut off"):
        file.tensors(file.content)
