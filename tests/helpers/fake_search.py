"""Stands in for a training process of a search: validations that rise to minus the distance of the seed from 40.

The folder `FAKE_DEEDS` says how the run of a seed ends, and notes its starts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = Path((words.get("resume") or words["hydra.run.dir"]).strip("'"))
seed = (
    int(words["seed"]) if "seed" in words else int(json.loads((folder / "config.yaml").read_text())["seed"])
)
deeds = Path(os.environ["FAKE_DEEDS"])
deed = (deeds / str(seed)).read_text() if (deeds / str(seed)).exists() else "complete"


def status(state: str, error: str | None = None) -> None:
    values = {"status": state, "error": error, "pid": os.getpid(), "host": os.uname().nodename}
    (folder / "status.json").write_text(json.dumps(values))


def interrupted(*_: object) -> None:
    status("interrupted")
    sys.exit(130)


signal.signal(signal.SIGTERM, interrupted)
(folder / "config.yaml").write_text(json.dumps({"seed": seed}))
status("running")
with (deeds / "starts").open("a") as file:
    file.write(f"{seed} {'resumed' if 'resume' in words else 'new'}\n")
if deed == "fail":
    status("failed", "ValueError: as asked")
    sys.exit(1)
with (folder / "metrics.jsonl").open("a") as file:
    for step, share in enumerate((3, 2, 1), start=1):
        file.write(json.dumps({"step": step, "val/CIDEr-D": -share * abs(seed - 40)}) + "\n")
        file.flush()
if deed == "hang":
    (deeds / f"{seed}.hangs").touch()
    time.sleep(60)
status("completed")
