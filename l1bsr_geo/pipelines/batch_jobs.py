"""Many scenes as a file: what is read, what is written, with which options.

    command: sr
    defaults: {model: l1bsr, dtype: uint16}
    jobs:
      - {input: S2A.SAFE, output: out/d05.tif, detector: 5}
      - {input: S2A.SAFE, output: out/d06.tif, detector: 6, command: ortho}

Keys are the options of the commands, with dashes or underscores; paths start in the file's folder.
The other kind of file is a catalog: see ``readers.catalog``.
"""

import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoError
from l1bsr_geo.georef.stac import item_path
from l1bsr_geo.models.model_file import is_model_file
from l1bsr_geo.models.registry import MODELS, Device, Model
from l1bsr_geo.pipelines.bands import orthorectify_bands, register
from l1bsr_geo.pipelines.job import Job, PathLike, read_aoi
from l1bsr_geo.pipelines.super_resolution import super_resolve
from l1bsr_geo.readers.catalog import list_sources
from l1bsr_geo.readers.catalog_grammar import is_catalog
from l1bsr_geo.readers.yaml_file import read_yaml
from l1bsr_geo.training.arguments import check_names, fit_value

PIPELINES: Mapping[str, Callable[..., Path]] = {
    "sr": super_resolve,
    "register": register,
    "ortho": orthorectify_bands,
}
"""Command to what does it."""

_TOP = ("command", "defaults", "jobs")
_ENTRY = ("input", "output", "command")
_OF_BATCH = ("source", "output", "progress", "scheduler", "workers", "options")
_OF_SR = ("camera", "start", "frames", "reference", "layers", "uncertainty", "report")
_COUNTS = ("detector", "scale", "tile", "frames")
_NOT_OF_FILES = ("source", "output", "ortho", "resume")
_SHARED = tuple(f.name for f in fields(Job) if f.name not in _NOT_OF_FILES)
_AS_TEXT: Mapping[str, Any] = {  # what a file says otherwise than a function takes it
    "aoi": str | None,
    "bands": str | Sequence[str] | None,
    "model": str | None,
    "no_ortho": bool,
    "refine": Literal["sentinelhub"] | Path | None,
} | dict.fromkeys(
    ("gipp", "layers", "uncertainty", "report", "dem", "geoid", "weights"), Path | None
)


@dataclass(frozen=True)
class SceneJob:
    """One scene of a batch.

    Attributes:
        name: unique in its batch, for people.
        command: key of ``PIPELINES``.
        source: what is read.
        output: what is written.
        options: of the command's function.
    """

    name: str
    command: str
    source: Path
    output: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def written(self) -> tuple[Path, ...]:
        """All files that it makes."""
        more = [self.options.get(name) for name in ("layers", "uncertainty", "report")]
        if self.options.get("stac"):
            more.append(item_path(self.output))
        return (self.output, *(Path(path) for path in more if path is not None))


def read_jobs(path: PathLike, out: PathLike | None = None) -> list[SceneJob]:
    """Read a file of jobs, or a catalog; every mistake in it is found before anything is done.

    Args:
        path: YAML file.
        out: folder where outputs start, in place of the file's own; a catalog needs one.

    Raises:
        MissingInputError: there is no such file.
        BadInputError: it is neither.
        BadOptionError: a key or a value that is not allowed, two jobs that write one file.
    """
    path = Path(os.path.abspath(path))  # workers are started elsewhere
    document = read_yaml(path, "file of jobs")
    folder = path.parent if out is None else Path(os.path.abspath(out))
    if isinstance(document, dict) and "jobs" in document:
        jobs = list(_read_entries(document, path, folder))
    elif is_catalog(document):
        if out is None:
            raise BadOptionError(f"{path.name}: a catalog names no outputs; give --out FOLDER")
        jobs = list(_read_sources(document, path, folder))
    else:
        raise BadInputError(
            f"{path}: neither a list of jobs (a key jobs) nor a catalog (sources with uri)"
        )
    if not jobs:
        raise BadInputError(f"{path}: has no jobs")
    _refuse_shared_files(jobs, path)
    return jobs


def _read_entries(document: dict[str, Any], path: Path, folder: Path) -> Iterator[SceneJob]:
    """The jobs of a file of jobs."""
    where = path.name
    check_names(document, _TOP, where)
    defaults = _with_underscores(document.get("defaults") or {}, f"{where}: defaults")
    allowed = ["input", *dict.fromkeys(name for c in PIPELINES for name in options_of(c))]
    check_names(defaults, allowed, f"{where}: defaults")
    entries = document["jobs"] or []
    if not isinstance(entries, list):
        raise BadInputError(f"{where}: jobs: found {entries!r}, expected a list")
    read_area, labels = cache(read_aoi), _labels(entries)
    for number, entry in enumerate(entries, 1):
        told = _with_underscores(entry, f"{where}: job {number}")
        at = f"{where}: job {number} ({told.get('output', 'no output')})"
        command = told.get("command", document.get("command", "sr"))
        if command not in PIPELINES:
            raise BadOptionError(f"{at}: command: found {command!r}, allowed {_list(PIPELINES)}")
        known = options_of(command)
        check_names(told, (*_ENTRY, *known), at)
        told = {k: v for k, v in defaults.items() if k in known or k == "input"} | told
        for key in ("input", "output"):
            if not isinstance(told.get(key), str) or not told[key]:
                raise BadOptionError(f"{at}: {key}: found {told.get(key)!r}, expected a path")
        options = {k: v for k, v in told.items() if k not in _ENTRY}
        source, output = path.parent / told["input"], folder / told["output"]
        made = SceneJob(labels[number - 1], command, source, output)
        yield _with_options(made, options, at, path.parent, read_area)


def _labels(entries: Sequence[Any]) -> list[str]:
    """What jobs are called: the stem of the output, or all of it where stems are not unique."""
    outputs = [str(e.get("output", "")) if isinstance(e, dict) else "" for e in entries]
    stems = [Path(output).stem for output in outputs]
    return stems if len(set(stems)) == len(stems) else outputs


def _read_sources(document: dict[str, Any], path: Path, folder: Path) -> Iterator[SceneJob]:
    """A job for each source of a catalog."""
    read_area = cache(read_aoi)
    for source in list_sources(document, path):
        at = f"{path.name}: {source.name}"
        if Path(source.name).name != source.name:
            raise BadInputError(f"{at}: names a file of --out, so it must not be a path")
        told = _with_underscores(source.options or {}, at)
        command = told.pop("command", "sr")
        if command not in PIPELINES:
            raise BadOptionError(f"{at}: command: found {command!r}, allowed {_list(PIPELINES)}")
        check_names(told, options_of(command), at)
        made = SceneJob(source.name, command, source.path, folder / f"{source.name}.tif")
        yield _with_options(made, told, at, path.parent, read_area)


@cache
def options_of(command: str) -> dict[str, Any]:
    """The options of a command in a file of jobs: name to what it may be."""
    hints = {**get_type_hints(Job), **get_type_hints(PIPELINES[command])}
    own = [n for n in inspect.signature(PIPELINES[command]).parameters if n not in _OF_BATCH]
    shared = [n for n in _SHARED if command == "sr" or n not in _OF_SR]
    names = [*own, *shared] if command == "ortho" else [*own, *shared, "no_ortho"]
    return {name: _AS_TEXT.get(name, hints.get(name)) for name in names}


def _with_options(
    job: SceneJob,
    told: Mapping[str, Any],
    where: str,
    root: Path,
    read_area: Callable[[str], Any],
) -> SceneJob:
    """A job with the options that its entry tells, as the command's function takes them."""
    known = options_of(job.command)
    options = {
        name: fit_value(v, known[name], f"{where}: {name}", root) for name, v in told.items()
    }
    for name in _COUNTS:
        if options.get(name) is not None and options[name] < 1:
            raise BadOptionError(f"{where}: {name}: found {options[name]}, expected 1 or more")
    if options.get("model") is not None:
        options["model"] = _find_model(options, where, root)
    if "no_ortho" in options:
        options["ortho"] = not options.pop("no_ortho")
    if isinstance(options.get("bands"), str):
        options["bands"] = tuple(band.strip() for band in options["bands"].split(","))
    try:
        if options.get("aoi") is not None:
            area = options["aoi"]
            box = area.count(",") == 3
            options["aoi"] = read_area(area if box else str(root / area))
        shared = {k: v for k, v in options.items() if k in _SHARED or k == "ortho"}
        Job(source=job.source, output=job.output, **shared)
    except L1bsrGeoError as error:
        raise BadOptionError(f"{where}: {error}") from None
    return SceneJob(job.name, job.command, job.source, job.output, options)


def _find_model(options: Mapping[str, Any], where: str, root: Path) -> str | Model:
    """A model by its name; a model file as it is now, which must be the same when it is used."""
    word = options["model"]
    if not is_model_file(word):
        if word not in MODELS:
            raise BadOptionError(
                f"{where}: model: found {word!r}, allowed {_list(MODELS)}, or a model file"
            )
        return str(word)
    path = root / word
    more = [name for name in ("scale", "weights") if options.get(name) is not None]
    if more:
        raise BadOptionError(f"{where}: {more[0]}: a model file has its own; leave it out")
    try:
        state = path.stat() if path.exists() else None
        return _open_model(path, options.get("device", "auto"), state and state.st_mtime_ns)
    except L1bsrGeoError as error:
        raise BadOptionError(f"{where}: model: {error}") from None


@lru_cache(maxsize=8)
def _open_model(path: Path, device: Device, _changed: int | None) -> Model:
    return Model.from_file(path, device)


def _with_underscores(told: Any, where: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise BadInputError(f"{where}: found {told!r}, expected options with values")
    return {str(name).replace("-", "_"): value for name, value in told.items()}


def _refuse_shared_files(jobs: Sequence[SceneJob], path: Path) -> None:
    """Jobs are done in any order, at once: none may touch what another writes."""
    written = [(os.path.abspath(file), job) for job in jobs for file in job.written]
    twice = [file for file, count in Counter(file for file, _ in written).items() if count > 1]
    if twice:
        names = _list(job.name for file, job in written if file == twice[0])
        raise BadOptionError(f"{path.name}: {twice[0]} is the output of several jobs: {names}")
    makers = dict(written)
    for job in jobs:
        maker = makers.get(os.path.abspath(job.source))
        if maker is not None:
            raise BadOptionError(
                f"{path.name}: {job.source} is the output of {maker.name} and the input of "
                f"{job.name}; jobs do not wait for each other, so run two batches"
            )


def _list(names: Any) -> str:
    return ", ".join(map(str, names))
