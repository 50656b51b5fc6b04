"""Stands in for a training process: writes a run's files, then ends as the folder `FAKE_DEEDS` says for its seed."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = Path((words.get("resume") or words["hydra.run.dir"]).strip("'"))
seed = re.search(r"-?s(\d+)-\w+$", folder.name).group(1)
deeds = Path(os.environ["FAKE_DEEDS"])
deed = (deeds / seed).read_text() if (deeds / seed).exists() else "complete"


def status(state: str, error: str | None = None) -> None:
    values = {"status": state, "error": error, "pid": os.getpid(), "host": os.uname().nodename}
    (folder / "status.json").write_text(json.dumps(values))


def interrupted(*_: object) -> None:
    status("interrupted", None)
    sys.exit(130)


signal.signal(signal.SIGTERM, interrupted)
if deed == "die before the first word":
    print("no such luck")
    sys.exit(3)
(folder / "config.yaml").write_text("seed: 1")
status("running")
with (folder / "legs.txt").open("a") as file:
    file.write("resumed\n" if "resume" in words else "new\n")
time.sleep(0.3)
if deed == "fail":
    print("Traceback of a failure", file=sys.stderr)
    status("failed", "ValueError: as asked")
    sys.exit(1)
if deed == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if deed == "hang":
    (deeds / f"{seed}.hangs").touch()
    signal.pause()
score = {"value": float(seed), "low": 0.0, "high": 9.0, "signature": "s"}
(folder / "result.json").write_text(json.dumps({"scores": {"test": {"CIDEr-D": score}}}))
status("completed")
