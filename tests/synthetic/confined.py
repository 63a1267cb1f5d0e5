"""What a command does to the world around it, and what it may do."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MEMORY = 1400
"""[MiB] of a process at its peak; torch alone takes some 400."""


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left."""

    code: int
    stderr: str
    new: list[Path]
    peak: float = 0.0  # [MiB]

    @property
    def errors(self):
        return [line for line in self.stderr.splitlines() if line.startswith("error:")]

    def refused(self, *words):
        """Exit code 2, one line that says what is wrong, and no file."""
        assert self.code == 2, self.stderr[-2000:]
        assert len(self.errors) == 1, self.stderr[-2000:]
        assert "Traceback" not in self.stderr
        assert not self.new
        assert self.peak < MEMORY
        for word in words:
            assert word in self.errors[0]

    def done(self, output):
        """A result, and nothing beside it."""
        assert self.code == 0, self.stderr[-2000:]
        assert not self.errors
        assert "Traceback" not in self.stderr
        assert self.new == [output]

    def harmless(self, output):
        """Either of the two."""
        if self.code == 0:
            self.done(output)
        else:
            self.refused()


class MemoryWatch(threading.Thread):
    """Looks at the memory of a process until it ends.

    Not `ru_maxrss`: on Linux that of a child begins with its parent's.
    """

    def __init__(self, pid):
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self.peak = 0.0  # [MiB]
        self.start()

    def run(self):
        with suppress(FileNotFoundError, ProcessLookupError):
            while words := [w for w in self._status.read_text().splitlines() if "VmHWM" in w]:
                self.peak = max(self.peak, int(words[0].split()[1]) / 1024)
                time.sleep(0.01)


def files(folder):
    """Everything below a folder, hidden things too; of files and links size and time of change."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        is_folder = path.is_dir() and not path.is_symlink()
        found[path] = (0, 0) if is_folder else (status.st_size, status.st_mtime_ns)
    return found


def outputs(words, before):
    """Outputs that a command may replace."""
    return [w for w in words if isinstance(w, Path) and w in before and "--overwrite" in words]


def ortho(source, output, *more):
    return ("ortho", source, output, "--bands", "B03", "--resolution", "50", *more)


def sr(source, output, *more):
    return ("sr", source, output, "--model", "geometric", *more)


def granule_xml(safe):
    return next(safe.glob("GRANULE/*/*_MTD_L1B_GR_*.xml"))


def image(safe):
    return next(safe.rglob("*_B03.jp2"))
