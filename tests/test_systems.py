"""What depends on the system: modes of files follow the umask, and nothing needs what Windows lacks to be imported."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from easycap.utils.files import check_writable, write_atomically
from easycap.utils.paths import share_as_usual
from easycap.utils.processes import descriptors, lock

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@POSIX
def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    private, folder = tmp_path / "file", tmp_path / "folder"
    private.touch(0o600)
    folder.mkdir(0o700)
    share_as_usual(private, folder)
    write_atomically(tmp_path / "report.html", "text")
    with lock(tmp_path / "lock"):
        pass
    assert {mode(tmp_path / name) for name in ("file", "report.html", "lock")} == {0o666 & ~umask}
    assert mode(folder) == 0o777 & ~umask
    assert len(list(tmp_path.iterdir())) == 4


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, "before")

    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as opened:
            opened.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(Path, "write_bytes", half)
        with pytest.raises(OSError, match="No space"):
            write_atomically(file, "a" * 100_000)
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, "text")
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))


@POSIX
def test_links_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere" / "file")
    write_atomically(link, "text")
    assert link.is_symlink() and (tmp_path / "elsewhere" / "file").read_text() == "text"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    check_writable(pipe)
    write_atomically(pipe, "through")
    assert reader.communicate(timeout=10)[0] == "through" and pipe.is_fifo()


@POSIX
def test_a_child_that_inherits_a_lock_holds_it_on(tmp_path: Path) -> None:
    """A parent that is killed does not release what its child still works on."""
    code = """
        import os, subprocess, sys
        from pathlib import Path
        from easycap.utils.processes import descriptors, lock
        with lock(Path(sys.argv[1])) as held:
            child = ["-c", "print('here', flush=True); input()"]
            subprocess.Popen([sys.executable, *child], stdin=0, pass_fds=descriptors(held))
            os._exit(0)
    """
    file = tmp_path / "lock"
    command = [sys.executable, "-c", textwrap.dedent(code), str(file)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "here\n"
    assert parent.wait(60) == 0
    with lock(file, wait=False) as held:
        assert held is None
    parent.communicate("\n", timeout=60)  # the child ends
    with lock(file) as held:
        assert held is not None and len(descriptors(held)) == 1


# What a system without them has not: modules, functions, signals.
WITHOUT = """
    import os, signal, sys

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name in ("fcntl", "resource", "pwd", "grp", "termios"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in ("fcntl", "resource", "pwd", "grp", "termios"):
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Absent())
    for name in ("fork", "sched_getaffinity", "getuid", "geteuid"):
        if hasattr(os, name):
            delattr(os, name)
    for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            delattr(signal, name)
    from easycap.cli import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["score", "captions.json", "references.json", "--metrics", "bleu", "--json", "out.json"],
        ["runs"],
        ["train", "--help"],
        ["compare", "--help"],
        ["caption", "--help"],
        ["evaluate", "--help"],
        ["table", "--help"],
        ["data", "--help"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_commands_work_without_what_windows_lacks(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text('{"1": "a dog"}')
    (tmp_path / "references.json").write_text('{"1": ["a dog"]}')
    environment = {**os.environ, "EASYCAP_OUTPUTS": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT), *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    wanted = "no runs below" if words == ["runs"] else ""
    assert done.returncode == int(bool(wanted)) and "Traceback" not in done.stderr, done.stderr
    assert wanted in done.stderr


def test_modules_are_imported_without_what_windows_lacks() -> None:
    """The commands above stop before training; these are what it imports."""
    code = textwrap.dedent(WITHOUT).partition("from easycap.cli")[0]
    code += "import easycap.train, easycap.sweeps.run, easycap.sweeps.launchers, easycap.data.loader\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
