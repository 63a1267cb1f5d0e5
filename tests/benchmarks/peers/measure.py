"""What a command costs: wall and CPU time, memory of its processes, disk under a folder."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_MEMORY_PERIOD, _DISK_PERIOD = 0.1, 0.2  # [s]; a look takes some milliseconds


@dataclass(frozen=True)
class Cost:
    """One run: seconds, seconds of all cores, bytes, bytes."""

    wall: float
    cpu: float
    memory: float
    disk: float


def run(command: list[str], folder: Path, log: Path) -> Cost:
    """Run a command in a folder of its own, where its temporary files go, too.

    Memory is the largest resident memory of the process and its children together; disk the
    largest size allocated below the folder beyond what was there before.

    Raises:
        SystemExit: the command failed; says what it wrote.
    """
    temporary = folder / "temporary"
    temporary.mkdir()
    before = allocated(folder)
    environment = os.environ | {"TMPDIR": str(temporary)}
    with log.open("w") as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=environment
        )
        done = threading.Event()
        watcher = _Watcher(process.pid, folder, done)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    done.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed:\n{log.read_text()[-3000:]}")
    disk = max(watcher.disk, allocated(folder)) - before
    return Cost(wall, usage.ru_utime + usage.ru_stime, watcher.memory, disk)


class _Watcher(threading.Thread):
    """Looks at a process and a folder until told that it is done."""

    def __init__(self, pid: int, folder: Path, done: threading.Event) -> None:
        super().__init__()
        self._process, self._folder, self._done = psutil.Process(pid), folder, done
        self.memory = self.disk = 0

    def run(self) -> None:
        next_disk = 0.0
        while not self._done.wait(_MEMORY_PERIOD):
            self.memory = max(self.memory, self._resident())
            if time.perf_counter() >= next_disk:
                self.disk = max(self.disk, allocated(self._folder))
                next_disk = time.perf_counter() + _DISK_PERIOD

    def _resident(self) -> int:
        try:
            family = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        total = 0
        for member in family:
            try:
                total += member.memory_info().rss
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue  # it ended since
        return max(total, peak_memory(self._process.pid))  # which sees peaks between two looks


def peak_memory(pid: int) -> int:
    """The most resident memory of a running process so far [bytes].

    Not `ru_maxrss`: on Linux that of a child begins with its parent's.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def allocated(folder: Path) -> int:
    """What a folder's files take on the disk [bytes]; they come and go while we look."""
    total, folders = 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            continue
    return total
