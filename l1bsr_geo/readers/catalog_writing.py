"""Writing into a catalog that a person keeps: what else stands in it stays as it is."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.readers.yaml_file import parse_yaml

_HEAD = """\
# A HydroMT v1 data catalog of what lies beside it; see `l1bsr-geo catalog`. Yours to edit.
meta:
  name: l1bsr_geo_user
"""


def put_source(path: Path, name: str, source: Mapping[str, Any]) -> None:
    """Write a source into a catalog, at its end, in place of the one of its name.

    Args:
        path: of the catalog, which is made with its folder where it is not there.
        name: of the source.
        source: as HydroMT takes it, without placeholders.

    Raises:
        BadInputError: the file is no catalog, or cannot be changed without spoiling it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with lock:
        text = path.read_text("utf-8") if path.is_file() else _HEAD
        before = parse_yaml(text, str(path)) or {}
        if not isinstance(before, dict):
            found = repr(before)[:60]
            raise BadInputError(f"{path}: found {found}, expected sources with uri, by name")
        written = yaml.safe_dump(
            {name: dict(source)}, sort_keys=False, allow_unicode=True, width=1000
        )
        kept = _without(text, name).rstrip()
        after = f"{kept}\n\n{written}" if kept else written
        wanted = {k: v for k, v in before.items() if k != name} | {name: source}
        if not _reads_as(after, wanted):
            raise BadInputError(
                f"{path}: {name} cannot be written there without spoiling the file; add it by hand"
            )
        _replace(path, after)
    Path(lock.lock_file).unlink(missing_ok=True)


def _without(text: str, name: str) -> str:
    """The text without the lines of a source."""
    node = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        return text
    starts = [key.start_mark.line for key, _ in node.value]
    lines = text.splitlines(keepends=True)
    for i in reversed(range(len(starts))):
        if node.value[i][0].value == name:
            end = starts[i + 1] if i + 1 < len(starts) else len(lines)
            while end - 1 > starts[i] and (
                lines[end - 1].startswith("#") or not lines[end - 1].strip()
            ):
                end -= 1  # comments belong to what follows
            del lines[starts[i] : end]
    return "".join(lines)


def _reads_as(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return bool(parse_yaml(text, "") == wanted)
    except BadInputError:
        return False


def _replace(path: Path, text: str) -> None:
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(made, path.stat().st_mode & 0o777 if path.is_file() else 0o644)
        os.replace(made, path)
    except BaseException:
        os.unlink(made)
        raise
