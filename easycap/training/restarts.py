"""`torchrun --max-restarts`: a restarted job resumes the run that it had started.

torchrun repeats its command, which would start a new run. Rank 0 therefore records which run it trains, under the
name that torchrun gives to all attempts of one job.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from easycap.utils.files import write_atomically
from easycap.utils.paths import outputs_dir

_FOLDER = ".restarts"
# What torchrun calls a job that was not given a name.
_NAMELESS = ("", "none")


class Restarts:
    """Which run the attempts of one job train, by torchrun's variables; without torchrun, nothing is remembered."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.attempt = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
        self.allowed = int(environment.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0
        name = environment.get("TORCHELASTIC_RUN_ID", "")
        if name in _NAMELESS:
            name = f"{os.getppid()}"  # torchrun itself, which all attempts have in common
        parts = [name, environment.get("SLURM_JOB_ID", "")]
        self.file = outputs_dir() / _FOLDER / "".join(c if c.isalnum() else "-" for c in "-".join(parts))

    def run_to_resume(self) -> Path | None:
        """Return the run that the previous attempt started; None in the first attempt, or if no run is left."""
        if self.attempt == 0:
            self.forget()
            return None
        run = Path(self.file.read_text(encoding="utf-8")) if self.file.is_file() else None
        return run if run is not None and (run / "status.json").is_file() else None

    def remember(self, run: Path) -> None:
        """Note which run is trained, if there may be another attempt."""
        if self.allowed:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, str(run.absolute()))

    def forget(self) -> None:
        """Remove the note."""
        self.file.unlink(missing_ok=True)
