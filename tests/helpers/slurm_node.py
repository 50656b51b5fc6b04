"""A real SLURM of one node on this machine, without accounting: Debian's packages slurm-wlm and munge, started as root.

python tests/helpers/slurm_node.py start FOLDER       # then: export SLURM_CONF=FOLDER/slurm.conf
python tests/helpers/slurm_node.py stop FOLDER
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
_SECONDS = 60


def available() -> bool:
    """Return whether SLURM is installed here and may be started."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and all(_program(name) for name in PROGRAMS)


def start(folder: Path) -> Path:
    """Start munge, the controller and the node with all their files in `folder`; return slurm.conf.

    Raises `RuntimeError` with the end of the logs if the node is not idle after a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    config = folder / "slurm.conf"
    config.write_text(_config(folder), encoding="utf-8")
    environment = os.environ | {"SLURM_CONF": str(config)}
    munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "log", "pid", "seed")]
    for command in (
        [_program("munged"), "--force", f"--socket={folder}/munge/socket", *munge],
        [_program("slurmctld"), "-c"],
        [_program("slurmd"), "-c"],
    ):
        subprocess.run(command, env=environment, check=True)
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        asked = subprocess.run(
            [_program("sinfo"), "-h", "-o", "%T"], env=environment, capture_output=True, text=True
        )
        if asked.stdout.strip() == "idle":
            return config
        time.sleep(0.5)
    logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in folder.glob("*.log"))
    stop(folder)
    raise RuntimeError(f"the node is not idle: {asked.stdout}{asked.stderr}\n{logs}")


def stop(folder: Path) -> None:
    """End all that `start` started in `folder`."""
    for pid_file in (folder / "slurmd.pid", folder / "slurmctld.pid", folder / "munge" / "pid"):
        if pid_file.is_file():
            pid = int(pid_file.read_text())
            _end(pid)


def _end(pid: int) -> None:
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        deadline = time.monotonic() + seconds
        try:
            os.kill(pid, number)
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _config(folder: Path) -> str:
    host = socket.gethostname()
    controller, node = _free_ports(2)
    return f"""
ClusterName=easycap
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
KillWait=20
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    action, where = sys.argv[1], Path(sys.argv[2]).resolve()
    if action == "start":
        print(f"export SLURM_CONF={start(where)}")
    else:
        stop(where)
