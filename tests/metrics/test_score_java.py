"""METEOR and SPICE: equal to the reference where Java is, absent with a reason where it fails, never hanging."""

import json
import os
import shutil
import signal
import stat
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import pytest
import reference_tool
from helpers.waiting import wait_for

from easycap.metrics import Meteor, Spice, score
from easycap.metrics.meteor import meteor_from_counts

GOLDENS = json.loads(reference_tool.GOLDENS.read_text(encoding="utf-8"))
CAPTIONS, REFERENCES = {"1": "a dog runs", "2": "a cat"}, {"1": ["the dog runs"], "2": ["a cat", "two cats"]}

needs_java = pytest.mark.skipif(not reference_tool.HAS_JAVA, reason="Java is not installed")


def _fake_java(folder: Path, script: str) -> str:
    """A program that takes Java's place; `-version` is answered, everything else does what `script` says."""
    path = folder / "java"
    version = 'if [ "$1" = -version ]; then echo \'openjdk version "17.0.1"\' >&2; exit 0; fi\n'
    path.write_text("#!/bin/sh\n" + version + textwrap.dedent(script))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def _reason(scorer) -> str:
    """Score with BLEU beside it: BLEU must come whatever happens to the other."""
    found = score(CAPTIONS, REFERENCES, scorers=["bleu", scorer])
    assert set(found) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"}
    assert set(found.absent) == set(scorer.names)
    return found.absent[scorer.names[0]]


@needs_java
def test_meteor_equals_goldens() -> None:
    found = score(GOLDENS["captions"], GOLDENS["references"], scorers=["meteor"])["METEOR"]
    golden = GOLDENS["scores"]["METEOR"]
    assert found.value == pytest.approx(golden["value"], abs=1e-9)
    assert [found.per_image[i] for i in GOLDENS["references"]] == pytest.approx(golden["per_image"], abs=1e-9)
    assert found.low < found.value < found.high


def test_meteor_formula() -> None:
    """Counts that the jar gave for two sentence pairs, and its scores of them and of both together."""
    import numpy as np

    first = "9 8 5 4 2 2 2 2 1 1 0 0 0 0 0 0 1 1 1 1 3 7 7"
    second = "5 10 2 5 1 1 1 1 0 0 0 0 0 0 0 0 1 1 1 0 1 4 3"
    counts = np.array([[float(n) for n in row.split()] for row in (first, second)])
    expected = [0.37281951452266954, 0.16713805270399867]
    assert meteor_from_counts(counts).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exec sleep 60", "did not finish within 0.5 seconds"),
        ("exit 3", "exit status 3"),
        ("echo 'Error: out of memory' >&2; exit 1", "out of memory"),
        ("kill -9 $$", "exit status -9"),
        ("echo 1 2 3", "answered 1 lines for 2 captions"),
        ("echo hello; echo world", "answered 'hello' instead of 23 numbers"),
        ("cat > /dev/null", "answered 0 lines for 2 captions"),
        ("head -c 3000000 /dev/zero >&2; exit 1", "exit status 1"),
    ],
)
def test_a_java_that_fails_leaves_meteor_absent(tmp_path, script: str, reason: str) -> None:
    start = time.perf_counter()
    assert reason in _reason(Meteor(java=_fake_java(tmp_path, script), seconds=0.5, jar="some.jar"))
    assert time.perf_counter() - start < 10


def test_no_java() -> None:
    assert "'no-such-java' was not found" in _reason(Meteor(java="no-such-java"))
    assert "'no-such-java' was not found" in _reason(Spice(java="no-such-java", jar="some.jar"))


@needs_java
def test_java_killed_in_the_middle_of_meteor(tmp_path) -> None:
    """The wrapper writes its process id, then becomes the real Java, which is then killed."""
    java = _fake_java(tmp_path, f'echo $$ > "{tmp_path}/pid"; exec java "$@"')

    def kill() -> None:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        time.sleep(0.3)  # nothing shows from outside how far Java is
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    reason = _reason(Meteor(java=java, seconds=60))
    killer.join()
    assert "exit status -9" in reason


@pytest.mark.slow
@needs_java
def test_meteor_twice_at_once_from_a_path_with_a_space(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()
    monkeypatch.chdir(folder)
    found: list[float] = []
    runs = [
        threading.Thread(
            target=lambda: found.append(score(CAPTIONS, REFERENCES, scorers=["meteor"])["METEOR"].value)
        )
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(found) == 2 and found[0] == found[1] > 0
    assert list(folder.iterdir()) == []


def test_spice_without_its_parser_names_the_missing_files() -> None:
    if not shutil.which("java"):
        pytest.skip("Java is not installed")
    assert "stanford-corenlp-3.6.0.jar" in _reason(Spice())


SPICE_STUB = """
    import java.nio.file.*;
    public class Stub {
        public static void main(String[] a) throws Exception {
            String text = Files.readString(Path.of(a[0]));
            if (text.contains("crash")) throw new RuntimeException("stub crashed");
            ClassLoader.class.getDeclaredMethod("findLoadedClass", String.class).setAccessible(true);
            if (!a[1].equals("-cache") || !a[3].equals("-out") || !Files.isDirectory(Path.of(a[2]))) System.exit(9);
            String f = text.contains("nothing") ? "NaN" : "0.25";
            Files.writeString(Path.of(a[4]), "[{\\"image_id\\": \\"1\\", \\"scores\\": {\\"All\\": {\\"f\\": 0.5}}}, "
                + "{\\"image_id\\": \\"2\\", \\"scores\\": {\\"All\\": {\\"f\\": " + f + "}}}]");
        }
    }
"""


@pytest.fixture(scope="module")
def spice_jar(tmp_path_factory) -> str:
    """A jar that reads and writes what SPICE's does, and looks into the JDK as SPICE's database does."""
    if not (shutil.which("javac") and shutil.which("jar") and reference_tool.HAS_JAVA):
        pytest.skip("no Java compiler")
    folder = tmp_path_factory.mktemp("spice stub")
    (folder / "Stub.java").write_text(textwrap.dedent(SPICE_STUB))
    subprocess.run(["javac", "Stub.java"], cwd=folder, check=True)
    subprocess.run(["jar", "cfe", "spice.jar", "Stub", "Stub.class"], cwd=folder, check=True)
    return str(folder / "spice.jar")


def test_spice_through_a_stub_jar(spice_jar: str) -> None:
    found = score(CAPTIONS, REFERENCES, scorers=[Spice(jar=spice_jar, memory="64M")])["SPICE"]
    assert found.per_image == {"1": 0.5, "2": 0.25} and found.value == 0.375


def test_spice_of_a_caption_without_tuples_is_zero_not_nan(spice_jar: str) -> None:
    captions = {**CAPTIONS, "2": "nothing"}
    assert (
        score(captions, REFERENCES, scorers=[Spice(jar=spice_jar, memory="64M")])["SPICE"].per_image["2"] == 0
    )


def test_spice_that_crashes_is_absent(spice_jar: str) -> None:
    found = score({**CAPTIONS, "1": "crash"}, REFERENCES, scorers=[Spice(jar=spice_jar, memory="64M")])
    assert "stub crashed" in found.absent["SPICE"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '[{"image_id": "1"}]', "[1]"])
def test_spice_that_writes_nonsense_is_absent(tmp_path, content: str) -> None:
    script = f"""
        for word; do if [ "$last" = -out ]; then echo '{content}' > "$word"; fi; last=$word; done
    """
    assert "no readable scores" in _reason(
        Spice(java=_fake_java(tmp_path, script), jar=str(tmp_path / "x.jar"))
    )
