"""What a user sees: one line for a mistake, warnings, progress."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

from rich.console import Console
from rich.markup import escape

from l1bsr_geo.errors import L1bsrGeoWarning

console = Console(stderr=True, emoji=False)  # ":b:" may be part of what is told


def fail(message: str) -> NoReturn:
    """Say what a user can mend, in one line, and end with exit code 2."""
    console.print(f"[red]error:[/red] {plain(message)}", soft_wrap=True, highlight=False)
    raise SystemExit(2)


_LONGEST = 1000  # characters of a line
_SAID: set[str] = set()  # an input may be looked at twice


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Ours as one line, said once; others only with -vv."""
    if issubclass(category, L1bsrGeoWarning):
        text = plain(str(message))
        if text in _SAID:
            return
        _SAID.add(text)
        console.print(f"[yellow]warning:[/yellow] {text}", soft_wrap=True, highlight=False)
    else:
        logging.getLogger("py.warnings").debug("%s:%d: %s", filename, lineno, message)


def plain(message: str) -> str:
    """One line of what can be printed, not too long, brackets not taken for markup.

    Names of files and what stands in them may hold anything, commands to the terminal too.
    """
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return escape(line)


@contextmanager
def show_progress(doing: str, what: str = "blocks") -> Iterator[Callable[[int, int], None] | None]:
    """A bar with throughput and remaining time on a terminal; nothing elsewhere."""
    if not console.is_terminal:
        yield None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(doing, total=None, rate="")
        start = time.monotonic()

        def advance(done: int, total: int) -> None:
            rate = f"{done / (time.monotonic() - start):.1f} {what}/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield advance
