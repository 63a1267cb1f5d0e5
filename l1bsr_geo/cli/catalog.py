"""`l1bsr-geo catalog`: list, fetch, add and to-stac."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from l1bsr_geo.cli.console import console, plain, show_progress
from l1bsr_geo.cli.options import OverwriteOption

if TYPE_CHECKING:
    from l1bsr_geo.readers.data_catalog import CatalogEntry

app = typer.Typer(
    help="Data by name: list, fetch, add, and hand on as STAC. They lie in the folder "
    "L1BSR_GEO_DATA, which also serves a machine without a network.",
    no_args_is_help=True,
)
CatalogOption = Annotated[
    Path | None,
    typer.Option("--catalog", help="A data catalog, in place of yours and the shipped one."),
]
_COLOURS = {"here": "green", "to fetch": "blue", "to get": "yellow"}


@app.command("list")
def list_data(
    catalog: CatalogOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with paths.")] = False,
) -> None:
    """What data there are by name, and which of them are here."""
    from l1bsr_geo.pipelines.catalog import list_catalog

    listed = list_catalog(catalog)
    if as_json:
        print(json.dumps([asdict(one) for one in listed], indent=2))
        return
    table = Table()
    rows = [(one.name, one.state, one.known_by, one.category, one.licence) for one in listed]
    heads = ("name", "state", "hash", "what", "licence")
    for i, head in enumerate(heads):  # on a narrow terminal the licences are cut, not the names
        longest = max((len(row[i]) for row in rows), default=0)
        width = longest if head != "licence" else 0
        table.add_column(head, no_wrap=True, overflow="ellipsis", min_width=width)
    for name, state, *told in rows:
        table.add_row(escape(name), f"[{_COLOURS[state]}]{state}[/]", *map(escape, told))
    Console().print(table)


@app.command("fetch")
def fetch_data(
    names: Annotated[list[str], typer.Argument(help="Names, see `catalog list`.")],
    catalog: CatalogOption = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence of weights unasked.")
    ] = False,
) -> None:
    """Bring data into the data folder, resumed and checked; prints where each lies."""
    from l1bsr_geo.pipelines.catalog_fetch import fetch_source
    from l1bsr_geo.readers.data_catalog import find_entry

    def ask(notice: str) -> bool:
        console.print(plain(notice), soft_wrap=True, highlight=False)
        return accept_licence or (sys.stdin.isatty() and typer.confirm("Accept?", err=True))

    entries = [find_entry(name, catalog) for name in names]  # all of them are there
    for entry in entries:
        fetch = entry.fetch
        if fetch is not None and fetch.model is None:
            console.print(plain(_say_terms(entry)), soft_wrap=True, highlight=False)
        with show_progress(f"fetching {entry.name}", "MB") as bar:
            path = fetch_source(
                entry.name,
                catalog=catalog,
                accept_licence=ask,
                progress=None if bar is None else _in_megabytes(bar),
            )
        print(path)


def _say_terms(entry: "CatalogEntry") -> str:
    """What comes under which licence, and how far it can be trusted."""
    terms = (
        f"{entry.name}: licence: {entry.licence} ({entry.metadata.get('source_url', 'no page')})"
    )
    if entry.known_by != "none":
        return terms
    return f"{terms}; no hash of it is known: what comes first is taken, and its sha256 kept"


def _in_megabytes(bar: Callable[[int, int], None]) -> Callable[[int, int | None], None]:
    def advance(have: int, total: int | None) -> None:
        bar(have // 1_000_000, (have if total is None else total) // 1_000_000)

    return advance


@app.command("add")
def add_data(
    name: Annotated[str, typer.Argument(help="What it shall be called.")],
    where: Annotated[
        str, typer.Argument(help="File, product, burst, 'wild*card', or address to fetch from.")
    ],
    licence: Annotated[str, typer.Option(help="What it comes under.")] = "none stated",
    notes: Annotated[str | None, typer.Option(help="For people.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Of the content behind an address.")] = None,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="The address is of an archive, .zip or .tar.")
    ] = False,
    driver: Annotated[
        str | None, typer.Option(help="HydroMT driver, such as s2_l1b; found by default.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="OPTION=VALUE of sr for it in `batch`, such as detector=5."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Add data of your own to your catalog, in the data folder; nothing is copied."""
    from l1bsr_geo.pipelines.catalog import add_source

    entry = add_source(
        name,
        where,
        driver=driver,
        licence=licence,
        notes=notes,
        sha256=sha256,
        unpack_it=unpack,
        options=_read_settings(settings) if settings else None,
        overwrite=overwrite,
    )
    print(f"{entry.name}: {entry.place} ({entry.driver}), in {entry.catalog}")


def _read_settings(settings: list[str]) -> dict[str, Any]:
    """OPTION=VALUE pairs, as they may stand in a catalog for `batch`."""
    from l1bsr_geo.errors import BadOptionError
    from l1bsr_geo.pipelines.batch_jobs import PIPELINES, options_of
    from l1bsr_geo.readers.yaml_file import parse_yaml
    from l1bsr_geo.training.arguments import check_names

    told = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        if not equals:
            raise BadOptionError(f"--set {setting}: expected OPTION=VALUE, such as detector=5")
        told[option.strip().replace("-", "_")] = parse_yaml(value, f"--set {setting}")
    command = told.get("command", "sr")
    if command not in PIPELINES:
        raise BadOptionError(f"--set command={command}: allowed {', '.join(PIPELINES)}")
    check_names(told, ("command", *options_of(command)), "--set")
    return told


@app.command("to-stac")
def write_stac(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    names: Annotated[
        list[str] | None, typer.Argument(help="Names; all of the catalog by default.")
    ] = None,
    catalog: CatalogOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the catalog as a static STAC 1.1 catalog that any STAC reader opens."""
    from l1bsr_geo.pipelines.catalog_stac import write_stac_catalog

    print(write_stac_catalog(folder, names or None, catalog=catalog, overwrite=overwrite))
