"""How ranks find each other: two jobs on one node never mix, and a rank that cannot take part says why."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from helpers.rank_processes import free_port, together, with_variables
from helpers.waiting import wait_for

import easycap.training.rendezvous as rendezvous
import easycap.training.shared_disk as shared_disk
from easycap.training.distributed import init_distributed
from easycap.training.place import Place
from easycap.training.rendezvous import default_port, job_token, meet


def srun(job: int, rank: int, **more: str) -> dict[str, str]:
    """The variables of one of two tasks of a job, all jobs on one node."""
    names = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NTASKS": 2, "SLURM_STEP_NUM_TASKS": 2}
    names |= {"SLURM_JOB_ID": job, "SLURM_STEP_ID": 0, "MASTER_ADDR": "127.0.0.1"}
    return {name: str(value) for name, value in names.items()} | more


def gathered(folder: Path, job: int, rank: int, until: Path | None = None) -> Callable[[], None]:
    """Writes the jobs of the ranks that this one has met, and stays until the file `until` is there."""

    def meet_others() -> None:
        with init_distributed() as ranks:
            (folder / f"{job}.{rank}").write_text(str(ranks.all_gather(job)))
            wait_for(lambda: until is None or until.exists())

    return meet_others


def test_two_jobs_on_one_node_meet_their_own_ranks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MASTER_PORT", raising=False)
    pairs = [(gathered(tmp_path, job, rank), srun(job, rank)) for rank in (1, 0) for job in (7001, 7002)]
    assert with_variables(pairs) == [0, 0, 0, 0]
    found = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert found == {f"{job}.{rank}": f"[{job}, {job}]" for job in (7001, 7002) for rank in (0, 1)}


def test_a_rank_at_the_port_of_another_job_is_refused(tmp_path: Path, capfd) -> None:
    port, refused = {"MASTER_PORT": str(free_port())}, tmp_path / "refused"

    def stranger() -> None:
        try:
            gathered(tmp_path, 7002, 1)()
        finally:
            refused.touch()

    own = [(gathered(tmp_path, 7001, rank, refused), srun(7001, rank, **port)) for rank in (0, 1)]
    assert with_variables([(stranger, srun(7002, 1, **port)), *own]) == [3, 0, 0]
    assert (tmp_path / "7001.0").read_text() == (tmp_path / "7001.1").read_text() == "[7001, 7001]"
    said = capfd.readouterr().out
    assert "rank 1: another job (7001.0.0) uses the port 127.0.0.1:" in said
    assert "give each job its own MASTER_PORT" in said


def test_a_port_in_use_is_named(monkeypatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(ValueError, match=f"the port 127.0.0.1:{port} is in use, perhaps by another"):
            meet(Place(0, 2, 0))


def test_a_rank_that_does_not_come_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(rendezvous, "_TIME_TO_MEET", timedelta(seconds=1))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(
        ValueError, match=r"rank 0 of 2 did not connect to the others at 127.0.0.1:\d+ \(MASTER_"
    ):
        meet(Place(0, 2, 0))


def test_the_second_attempt_of_torchrun_meets_in_the_store_of_the_first(tmp_path: Path) -> None:
    port = free_port()
    agent = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True"}

    def late() -> None:
        time.sleep(1)
        gathered(tmp_path, 7001, 0)()

    for attempt in ("0", "1"):
        own = shared | {"TORCHELASTIC_RESTART_COUNT": attempt}
        pairs = [(late, own | {"RANK": "0"}), (gathered(tmp_path, 7001, 1), own | {"RANK": "1"})]
        assert with_variables(pairs) == [0, 0]
    del agent


def test_ports_belong_to_jobs() -> None:
    ports = [default_port({"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": "0"}) for job in range(900, 1100)]
    assert len(set(ports)) == 200 and all(15_000 <= port < 32_000 for port in ports)
    assert default_port({"SLURM_JOB_ID": "900", "SLURM_STEP_ID": "1"}) == ports[0] + 1
    assert default_port({}) == 29500


def test_the_ranks_of_a_job_have_one_token() -> None:
    one, other = srun(5, 0), srun(5, 1)
    assert job_token(one) == job_token(other) != job_token(srun(6, 0))
    torchrun = {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "abc",
        "TORCHELASTIC_RESTART_COUNT": "1",
    }
    assert job_token(torchrun) == job_token(torchrun | {"RANK": "1", "SLURM_JOB_ID": "5"}) == "abc.1"
    by_hand = {"RANK": "0", "WORLD_SIZE": "2"}  # the second host need not be in the job's environment
    assert job_token(by_hand | {"SLURM_JOB_ID": "5"}) == job_token(by_hand)


def test_ranks_without_a_shared_disk_are_told(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(shared_disk, "_SECONDS_TO_APPEAR", 0.5)

    def sees() -> None:
        with init_distributed() as ranks:
            shared_disk.check_shared_disk(ranks, tmp_path)

    original = Path.read_text

    def read_elsewhere(path: Path, **options: str) -> str:
        path = tmp_path / "elsewhere" / path.name if path.parent == tmp_path else path
        return original(path, **options)

    def is_blind() -> None:
        monkeypatch.setattr(Path, "read_text", read_elsewhere)
        sees()

    assert together(sees, sees) == [0, 0] and not list(tmp_path.glob(".*"))
    assert together(sees, is_blind) == [3, 3] and not list(tmp_path.glob(".*"))
    said = capfd.readouterr().out
    assert said.count("rank 1 on") == 2 and f"cannot see {tmp_path}, which rank 0 on" in said
