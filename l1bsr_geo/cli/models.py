"""`l1bsr-geo models`: list, show, export, fetch and import."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from l1bsr_geo.cli.console import console, plain
from l1bsr_geo.cli.options import OverwriteOption

if TYPE_CHECKING:
    from l1bsr_geo.models.entries import Entry

app = typer.Typer(help="List, show, export, fetch and import models.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """What models there are, and whether their weights are here."""
    from l1bsr_geo.models.registry import MODELS

    table = Table()
    for head in ("name", "scale", "bands", "weights", "size", "licence"):
        table.add_column(head, no_wrap=head != "bands")  # names stay whole on narrow terminals
    for entry in MODELS.values():
        any_bands = f"any {entry.spec.channels}" if entry.spec.channels else "any"
        bands = " ".join(entry.spec.bands) if entry.spec.bands else any_bands
        for scales, *weights in _say_weights(entry):
            table.add_row(entry.spec.name, scales, bands, *weights)
    Console().print(table)


def _say_weights(entry: "Entry") -> Iterator[tuple[str, str, str, str]]:
    """Scales, where their weights are, size and licence; a row to each scale that is trained."""
    from l1bsr_geo.errors import MissingInputError
    from l1bsr_geo.models.checkpoint import find_shipped, find_weights, read_facts

    name, published = entry.spec.name, entry.weights
    scales = entry.scales or (entry.spec.scale,)
    if not entry.takes_weights:
        yield " ".join(f"x{scale}" for scale in scales), "needs none", "", ""
        return
    for scale in scales:
        unusual = entry.unusual(scale)
        try:
            path = find_weights(name, None, published, unusual)
        except MissingInputError:
            if published is None or unusual is not None:
                yield f"x{scale}", "to train", "", ""
            else:
                yield f"x{scale}", "to fetch", "", published.licence or "none stated"
            continue
        where = "shipped" if path == find_shipped(name, unusual) else "cached"
        licence = read_facts(path).get("licence", "none stated")
        yield f"x{scale}", where, f"{path.stat().st_size / 1e6:.2f} MB", licence


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Name of a model, or a model file.")],
    scale: Annotated[int | None, typer.Option(min=1, help="Fine pixels to a pixel.")] = None,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="The recipe that shipped weights were made by.")
    ] = False,
) -> None:
    """Print the model card of the weights that are used."""
    from l1bsr_geo.errors import BadOptionError
    from l1bsr_geo.models.cards import write_card
    from l1bsr_geo.models.checkpoint import find_shipped, find_weights
    from l1bsr_geo.models.model_file import is_model_file
    from l1bsr_geo.models.registry import find_entry

    if is_model_file(name):
        _show_file(name)
        return
    entry = find_entry(name)
    unusual = entry.unusual(scale)
    if not entry.takes_weights:
        print(f"# {name}\n\n{entry.spec.source or 'A classical model'}. It needs no weights.")
        _show_uncertainty(name, scale or entry.spec.scale, None)
        return
    path = find_weights(name, None, entry.weights, unusual)
    shipped = find_shipped(name, unusual)
    if recipe and path != shipped:
        raise BadOptionError(f"{path} does not come with l1bsr_geo, so its recipe is not here")
    if recipe:
        print(path.with_suffix(".yaml").read_text("utf-8"), end="")
    else:
        card = path.with_suffix(".md").read_text("utf-8") if path == shipped else None
        print(card or write_card(path, name=name), end="")
        _show_uncertainty(name, scale or entry.spec.scale, path)


def _show_uncertainty(name: str, scale: int, weights: Path | None) -> None:
    """How its errors follow from the spread of its results, where that was measured."""
    from typing import get_args

    from l1bsr_geo.models.calibration import find_calibration
    from l1bsr_geo.models.ensemble import Method
    from l1bsr_geo.models.stored import hash_file

    sha256 = None if weights is None else hash_file(weights)
    for method in get_args(Method):
        known = find_calibration(name, scale, sha256, method)
        if known is not None:
            print(f"\n## Uncertainty\n\n`--uncertainty` gives {known}.")


def _show_file(name: str) -> None:
    """What is told of a model file, and what was measured where nothing is told."""
    from l1bsr_geo.models.registry import Model

    model = Model.from_file(name, device="cpu")
    bands = " ".join(model.spec.bands) if model.spec.bands else f"any {model.spec.channels or ''}"
    print(f"# {model.spec.name}\n")
    for what, value in (
        *(("bands", bands), ("scale", model.spec.scale), ("halo [px]", model.spec.halo)),
        *(("gain [DN per unit]", f"{model.spec.gain:g}"), ("aligned", model.spec.aligned)),
        *(("multiple", model.spec.multiple), ("source", model.spec.source or "not told")),
        *(("licence", model.licence or "not told"), ("sha256", model.weights_sha256)),
    ):
        print(f"- {what}: {value}")


@app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Name of a model.")],
    onnx: Annotated[Path | None, typer.Option(help="ONNX file to write.")] = None,
    pt2: Annotated[
        Path | None, typer.Option(help="Program of torch.export to write, ending in .pt2.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights, as for sr.")] = None,
    scale: Annotated[int | None, typer.Option(min=1, help="Fine pixels to a pixel.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a network as a file for other programs, and compare what both make."""
    from l1bsr_geo.errors import BadOptionError
    from l1bsr_geo.models import exporting

    files = {".onnx": onnx, ".pt2": pt2}
    asked = [(suffix, path) for suffix, path in files.items() if path is not None]
    if not asked:
        raise BadOptionError("nothing to write; give --onnx FILE, --pt2 FILE, or both")
    for suffix, path in asked:
        if path.suffix.lower() != suffix:
            raise BadOptionError(f"--{suffix[1:]} {path}: expected a name ending in {suffix}")
    for _, path in asked:
        difference = exporting.export_model(
            name, path, weights=weights, scale=scale, overwrite=overwrite
        )
        print(path)
        console.print(f"differs from {name} by at most {difference:.2g} DN on random pixels")


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
