"""One scene of a batch: done, there already, or failed, and what it was warned of."""

import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import dask

from l1bsr_geo.errors import L1bsrGeoError, L1bsrGeoWarning
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.pipelines.batch_jobs import PIPELINES, SceneJob
from l1bsr_geo.pipelines.job import Progress


@dataclass(frozen=True)
class Outcome:
    """What became of a scene.

    Attributes:
        job: the scene.
        state: "there already" is only said when a batch is resumed.
        seconds: that it took.
        error: in one line, where it failed.
        warnings: of this package.
        traceback: where it failed by a mistake of this package.
    """

    job: SceneJob
    state: Literal["done", "there already", "failed"]
    seconds: float = 0.0
    error: str | None = None
    warnings: tuple[str, ...] = ()
    traceback: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "job": self.job.name,
            "command": self.job.command,
            "input": str(self.job.source),
            "output": str(self.job.output),
            "state": self.state,
            "seconds": round(self.seconds, 2),
            "error": self.error,
            "warnings": list(self.warnings),
        }


def settle_job(job: SceneJob, *, resume: bool) -> Outcome | None:
    """The outcome of a scene of which nothing is to be done, or nothing can be; else None.

    Makes the folders of the outputs.

    Args:
        job: the scene.
        resume: what is written already is left as it is.
    """
    if resume and job.output.exists():
        return Outcome(job, "there already", warnings=_say_missing(job))
    try:
        for file in job.written:
            file.parent.mkdir(parents=True, exist_ok=True)
            mine = resume and file != job.output  # of the same run, or the command will say
            overwrite = mine or job.options.get("overwrite", False)
            check_destination(file, [job.source], overwrite=overwrite)
    except (L1bsrGeoError, OSError) as error:
        return Outcome(job, "failed", error=one_line(error))
    return None


def _say_missing(job: SceneJob) -> tuple[str, ...]:
    """What a run that was killed between a result and its companions did not write."""
    missing = ", ".join(file.name for file in job.written if not file.exists())
    if not missing:
        return ()
    return (
        f"{job.output} is there, but not {missing}; remove the first to have all done again, or "
        "make them of it: evaluate --report, stac",
    )


def run_job(
    job: SceneJob,
    *,
    resume: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Do one scene; what goes wrong is part of the outcome.

    Args:
        job: the scene.
        resume: go on with what was begun.
        threads: work in this process alone, with so many threads; where None as dask is set up.
        progress: called with blocks done and blocks in all.
    """
    start, error, trace = time.monotonic(), None, None
    pipeline, options = PIPELINES[job.command], {"resume": resume, "progress": progress}
    with _in_charge(threads) as heard:
        try:
            pipeline(job.source, job.output, **options, **job.options)
        except L1bsrGeoError as mistake:
            error = one_line(mistake)
        except Exception as bug:  # the other scenes go on
            error, trace = f"{type(bug).__name__}: {one_line(bug)}", traceback.format_exc()
    took = time.monotonic() - start
    return Outcome(job, "failed" if error else "done", took, error, tuple(heard), trace)


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


_HEARD: dict[int, list[str]] = {}  # by thread: what the scene in it was warned of
_GATE = threading.Lock()
_UNDO = ExitStack()


@contextmanager
def _in_charge(threads: int | None) -> Iterator[list[str]]:
    """Warnings of the scene in this thread; dask's scheduler is the one of this process.

    Filters of warnings and dask's settings are of the whole process, where several scenes may run:
    the first one sets them, the last one puts them back.
    """
    thread, heard = threading.get_ident(), list[str]()
    with _GATE:
        if not _HEARD:
            _take_charge(threads)
        _HEARD[thread] = heard
    try:
        yield heard
    finally:
        with _GATE:
            del _HEARD[thread]
            if not _HEARD:
                _UNDO.close()


def _take_charge(threads: int | None) -> None:
    _UNDO.enter_context(warnings.catch_warnings())
    before = warnings.showwarning
    warnings.simplefilter("always", L1bsrGeoWarning)

    def hear(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        heard = _HEARD.get(threading.get_ident())
        if heard is None and len(_HEARD) == 1:  # a thread of the only scene
            (heard,) = _HEARD.values()
        if heard is None or not issubclass(category, L1bsrGeoWarning):
            before(message, category, filename, lineno, file, line)
        elif (text := " ".join(str(message).split())) not in heard:
            heard.append(text)

    warnings.showwarning = hear
    if threads is not None:
        how = "synchronous" if threads == 1 else "threads"
        _UNDO.enter_context(dask.config.set(scheduler=how, num_workers=threads))
