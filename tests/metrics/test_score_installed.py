"""An install that nobody may write to: scoring writes its result and nothing else, wherever it is installed.

Root may write to read-only files, so that permissions prove nothing: what is opened is watched instead.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import reference_tool

import easycap
from easycap.metrics import DocumentFrequencies
from easycap.metrics.java import bundled_jar

CAPTIONS = {"1": "a dog runs", "2": "a cat"}
REFERENCES = {"1": ["the dog runs"], "2": ["a cat", "two cats"]}

# Runs a command and prints every path that Python opens for writing, makes, renames or removes on the way.
WATCHED = """
    import os, sys
    touched = []

    def watch(event, values):
        writes = event == "open" and isinstance(values[0], (str, bytes)) and (
            values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if values[2] else False
        )
        if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"):
            touched.append(os.path.abspath(os.fsdecode(values[0])))

    sys.addaudithook(watch)
    from easycap.commands.score import main
    main(sys.argv[1:])
    print("\\n".join(["TOUCHED", *touched]))
"""


def _run(folder: Path, *options: str) -> list[str]:
    """Score in `folder` and return what was touched."""
    folder.mkdir()
    (folder / "c.json").write_text(json.dumps(CAPTIONS))
    (folder / "r.json").write_text(json.dumps(REFERENCES))
    code = textwrap.dedent(WATCHED)
    command = [sys.executable, "-c", code, "c.json", "r.json", "--json", "out.json", *options]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("TOUCHED\n")[2].splitlines()


def test_python_writes_nothing_but_the_result(tmp_path) -> None:
    folder = tmp_path / "with a space"
    touched = _run(folder, "--df", "r.json", "--training", "r.json")
    assert any(path.endswith(".partial") for path in touched), "the watch must see what is written"
    assert {Path(path).parent for path in touched} - {Path(os.devnull).parent} == {folder}
    assert sorted(path.name for path in folder.iterdir()) == ["c.json", "out.json", "r.json"]
    df = DocumentFrequencies.from_references(REFERENCES.values(), source="r")
    assert (
        json.loads((folder / "out.json").read_text())["scores"]
        == easycap.score(CAPTIONS, REFERENCES, df=df).to_dict()
    )


@pytest.mark.skipif(not reference_tool.HAS_JAVA, reason="Java is not installed")
def test_java_writes_nothing_into_the_packages(tmp_path) -> None:
    tools = bundled_jar("meteor/meteor-1.5.jar").parents[1]
    # Not its tokenizer: pycocoevalcap, which other tests run, writes there.
    installed = (tools / "meteor", tools / "spice", Path(easycap.__file__).parent)
    before = _state(*installed)
    touched = _run(tmp_path / "folder", "--metrics", "bleu,meteor,spice")
    assert _state(*installed) == before
    found = json.loads((tmp_path / "folder" / "out.json").read_text())
    assert found["scores"]["METEOR"]["value"] > 0 and "stanford-corenlp" in found["absent"]["SPICE"]
    assert not [path for path in touched if Path(path).is_relative_to(tools)]


def _state(*folders: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file; bytecode is Python's own."""
    files = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}
