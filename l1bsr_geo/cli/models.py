"""`l1bsr-geo models`: list, fetch and import."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from l1bsr_geo.cli.console import console, plain

app = typer.Typer(help="List, fetch and import models.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """What models there are, and whether their weights are here."""
    from l1bsr_geo.models.checkpoint import find_cached
    from l1bsr_geo.models.registry import MODELS

    table = Table("name", "scale", "bands", "weights", "source")
    for name, entry in MODELS.items():
        spec = entry.spec
        if not entry.takes_weights:
            weights = "needs none"
        elif find_cached(name).is_file():
            weights = "here"
        elif entry.weights is None:
            weights = "to train"
        else:
            weights = f"to fetch ({entry.weights.licence or 'no licence stated'})"
        bands = " ".join(spec.bands) if spec.bands else "any"
        scales = " ".join(f"x{scale}" for scale in entry.scales or (spec.scale,))
        table.add_row(name, scales, bands, weights, spec.source)
    Console().print(table)


@app.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="Name of a model.")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the weights' licence unasked.")
    ] = False,
) -> None:
    """Download published weights from their authors, check them, and keep them converted."""
    from l1bsr_geo.models.published import fetch

    def ask(notice: str) -> bool:
        console.print(plain(notice), soft_wrap=True, highlight=False)
        return accept_licence or (sys.stdin.isatty() and typer.confirm("Accept?", err=True))

    print(fetch(name, accept_licence=ask))


@app.command("import")
def import_model(
    path: Annotated[Path, typer.Argument(help="Published checkpoint, or safetensors of ours.")],
    name: Annotated[str | None, typer.Option(help="The model it is of, where in doubt.")] = None,
) -> None:
    """Convert a checkpoint that is on disk already."""
    from l1bsr_geo.models.published import import_weights

    print(import_weights(path, name))
