"""What the pixels of a result depend on: what a resumed run must have in common with the first."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import shapely

from l1bsr_geo.pipelines.job import SENTINELHUB, Job, PathLike

_FILES = ("source", "gipp", "dem", "geoid", "refine")
# what changes no pixel of this result
_ELSEWHERE = ("output", "layers", "uncertainty", "report", "stac", "overwrite", "resume")
_SIDECARS = ("{name}.aux.xml", "{stem}_RPC.TXT", "{stem}_rpc.txt", "{stem}.RPB", "{stem}.rpc")


def say_job(job: Job) -> dict[str, str]:
    """Every option of a job as text, and the state of the files that it names."""
    said = {}
    for field in fields(job):
        value = getattr(job, field.name)
        if field.name in _ELSEWHERE or value is None:
            continue
        if field.name in _FILES and value != SENTINELHUB:
            said[field.name] = say_files(value, job.output)
        elif isinstance(value, shapely.Geometry):
            said[field.name] = shapely.to_wkt(value, rounding_precision=-1)
        else:
            said[field.name] = str(value)
    return said


def say_files(path: PathLike, output: PathLike) -> str:
    """Name, number, bytes and last change of a file (with its sidecars) or of a folder's files.

    Two states of them that are told alike differ in nothing that a file system tells.

    Args:
        path: the file or folder.
        output: a file that is being written, which may lie in the folder.
    """
    path = Path(path)
    digest = hashlib.sha256()
    number = size = latest = 0
    for file in _files(path, Path(output)):
        state = file.stat() if file.exists() else file.lstat()  # a link may lead nowhere
        digest.update(
            f"{os.path.relpath(file, path)} {state.st_size} {state.st_mtime_ns}\n".encode()
        )
        number, size, latest = number + 1, size + state.st_size, max(latest, state.st_mtime_ns)
    changed = datetime.fromtimestamp(latest / 1e9, UTC).isoformat(timespec="milliseconds")
    files = "1 file" if number == 1 else f"{number} files"
    return f"{path.name} ({files}, {size} bytes, of {changed}, {digest.hexdigest()[:12]})"


def _files(path: Path, output: Path) -> Iterator[Path]:
    if not path.is_dir():
        sidecars = (path.with_name(s.format(name=path.name, stem=path.stem)) for s in _SIDECARS)
        yield path
        yield from (sidecar for sidecar in sidecars if sidecar.is_file())
        return
    ours = (output.name, f".{output.name}.parts")
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in ours)
        yield from (Path(folder, name) for name in sorted(names) if name not in ours)
