"""What a user sees: one line for a mistake, warnings, progress."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
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
    start = time.monotonic()
    with _show_bars(doing, spinner=True) as tell:

        def advance(done: int, total: int) -> None:
            if tell is not None:
                tell(doing, done, total, f"{done / (time.monotonic() - start):.1f} {what}/s")

        yield None if tell is None else advance


@contextmanager
def show_training(doing: str) -> Iterator[Callable[[int, int, Mapping[str, float]], None] | None]:
    """A bar with loss, best score and remaining time on a terminal; nothing elsewhere."""
    doing = f"training {doing}"
    with _show_bars(doing) as tell:

        def advance(done: int, total: int, figures: Mapping[str, float]) -> None:
            if tell is not None:
                tell(doing, done, total, _say_figures(figures))

        yield None if tell is None else advance


@contextmanager
def show_steps() -> Iterator[Callable[[str, int, int, Mapping[str, float]], None] | None]:
    """A bar with figures and remaining time to each thing that is done; nothing elsewhere."""
    with _show_bars() as tell:

        def advance(doing: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            if tell is not None:
                tell(doing, done, total, _say_figures(figures))

        yield None if tell is None else advance


def _say_figures(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in figures.items())


@contextmanager
def _show_bars(
    *begun: str, spinner: bool = False
) -> Iterator[Callable[[str, int, int, str], None] | None]:
    """Bars on a terminal, of what is done, how much of how much, and a text; None elsewhere."""
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
        *([SpinnerColumn()] if spinner else []),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        tasks = {doing: bar.add_task(doing, total=None, told="") for doing in begun}

        def tell(doing: str, done: int, total: int, told: str) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=None, told="")
            bar.update(tasks[doing], completed=done, total=total, told=told)

        yield tell
