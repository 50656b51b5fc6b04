"""Signals that ask a training to end: which are heeded, and that a terminal that is gone does no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import easycap
from easycap.runs.run_folder import RunFolder
from easycap.training.stop import Stop
from easycap.utils.processes import STOP_SIGNALS, heeded

ROOT = str(Path(easycap.__file__).parent.parent)


def endless() -> Iterator[int]:
    yield 1
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        signal.pause()


def test_a_signal_ends_an_endless_wait_once_what_there_is_is_saved() -> None:
    saved: list[int] = []
    with pytest.raises(KeyboardInterrupt), Stop(None) as stop:
        for step in stop.awaited(endless(), lambda: saved.append(stop.asked), alone=True):
            assert step == 1
    assert saved == [Stop.INTERRUPTED]


def test_of_several_ranks_none_ends_between_steps() -> None:
    def steps() -> Iterator[int]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield 1

    with Stop(None) as stop:
        assert list(stop.awaited(steps(), lambda: pytest.fail("saved"), alone=False)) == [1]
        assert stop.asked == Stop.INTERRUPTED


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_nohup_is_heeded() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in heeded(STOP_SIGNALS) and signal.SIGTERM in heeded(STOP_SIGNALS)
        with Stop(None) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


HUNG_UP = """
import os, signal, sys
from pathlib import Path
from easycap.utils.processes import end_as_on_interrupt

end_as_on_interrupt()
print("ready", flush=True)
try:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGHUP)
except KeyboardInterrupt:
    print("saving", file=sys.stderr, flush=True)  # OSError 5 if the terminal is gone
    Path(sys.argv[1]).write_text("saved")
"""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_a_dropped_connection_does_not_keep_a_run_from_saving(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", HUNG_UP, str(tmp_path / "file")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    os.close(theirs)
    assert process.stdout.readline() == b"ready\n"
    os.close(ours)
    process.communicate(timeout=60)
    assert process.returncode == 0 and (tmp_path / "file").read_text() == "saved"


def test_names_that_are_no_text_are_written_and_read_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", command="")
    run.write_captions("test", {"caf\udce9.jpg": "a dog \ud83d"})
    written = (run.path / "captions.test.json").read_bytes()
    assert rb"caf\udce9.jpg" in written
    assert json.loads(written) == [{"image_id": "caf\udce9.jpg", "caption": "a dog \ud83d"}]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_no_text_are_printed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    command = [sys.executable, "-m", "easycap", "caption", str(tmp_path / "none"), name]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONPATH": ROOT, "PYTHONUTF8": "1"}
    )
    assert done.returncode == 1 and done.stderr.startswith(b"easycap: ") and done.stderr.count(b"\n") == 1
