"""`l1bsr-geo batch`."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from l1bsr_geo.cli.console import console, plain, show_progress
from l1bsr_geo.cli.options import OverwriteOption, SchedulerOption, WorkersOption
from l1bsr_geo.errors import MissingInputError

if TYPE_CHECKING:
    from l1bsr_geo.pipelines.batch_scene import Outcome

log = logging.getLogger(__name__)

_ROWS = 100  # longer tables show what failed only
_COLOURS = {"done": "green", "there already": "blue", "failed": "red"}


def run_jobs(
    jobs: Annotated[Path, typer.Argument(help="Jobs (YAML), or a HydroMT data catalog.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder where outputs start; a catalog needs one.")
    ] = None,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what is written, go on with what was begun.")
    ] = False,
    overwrite: OverwriteOption = False,
    report: Annotated[
        Path | None, typer.Option(help="JSON file of what became of each scene.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON, in place of the table.")
    ] = False,
) -> None:
    """Do many scenes, each independent; exit code 1 if any failed."""
    from l1bsr_geo.pipelines.batch import run_batch
    from l1bsr_geo.pipelines.batch_jobs import read_jobs

    if report is not None and not report.parent.is_dir():
        raise MissingInputError(f"--report {report}: the folder {report.parent} does not exist")
    scenes = read_jobs(jobs, out)
    outcomes: list[Outcome] = []
    stopped = False
    running = run_batch(
        scenes, scheduler=scheduler, workers=workers, resume=resume, overwrite=overwrite
    )
    try:
        with closing(running), _show_scenes(len(scenes)) as show:
            for outcome in running:
                outcomes.append(outcome)
                show(outcome)
    except KeyboardInterrupt:
        stopped = True
    finally:
        order = {scene.name: place for place, scene in enumerate(scenes)}
        outcomes.sort(key=lambda outcome: order[outcome.job.name])
        _sum_up(outcomes, len(scenes), report, as_json=as_json)
    if stopped:
        raise typer.Exit(130)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


@contextmanager
def _show_scenes(count: int) -> Iterator[Callable[[Outcome], None]]:
    """A line to each scene that ends, with its warnings; on a terminal a bar below them."""
    number = 0
    with show_progress("scenes", "scenes") as advance:

        def show(outcome: Outcome) -> None:
            nonlocal number
            number += 1
            name = plain(outcome.job.name)
            for warning in outcome.warnings:
                _say(f"[yellow]warning:[/yellow] {name}: {plain(warning)}")
            state = f"[{_COLOURS[outcome.state]}]{outcome.state}[/]"
            what = f", {outcome.seconds:.1f} s" if outcome.state == "done" else ""
            what += f": {plain(outcome.error)}" if outcome.error else ""
            _say(f"{number} of {count}: {name} {state}{what}")
            if outcome.traceback:
                log.error("%s: this is a mistake of l1bsr-geo\n%s", name, outcome.traceback)
            if advance is not None:
                advance(number, count)

        yield show


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)


def _sum_up(outcomes: Sequence[Outcome], count: int, report: Path | None, *, as_json: bool) -> None:
    """What became of all scenes: a table or JSON, and the report."""
    states: Counter[str] = Counter(outcome.state for outcome in outcomes)
    states["not begun"] = count - len(outcomes)
    told = json.dumps(
        {
            "scenes": {state: number for state, number in states.items() if number},
            "jobs": [outcome.as_dict() for outcome in outcomes],
        },
        indent=2,
    )
    if report is not None:
        report.write_text(told + "\n", "utf-8")
    if as_json:
        print(told)
        return
    table = Table("job", "state", "seconds", "output", "error")
    for outcome in outcomes:
        if count <= _ROWS or outcome.state == "failed":
            table.add_row(
                plain(outcome.job.name),
                f"[{_COLOURS[outcome.state]}]{outcome.state}[/]",
                f"{outcome.seconds:.1f}",
                plain(os.path.relpath(outcome.job.output)),
                plain(outcome.error or ""),
            )
    if table.row_count:
        Console().print(table)
    print(", ".join(f"{number} {state}" for state, number in states.items() if number))
