"""The command line: command -> function of pipelines; arguments to values, errors to exit codes.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once.
"""

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console
from rich.table import Table

import l1bsr_geo
from l1bsr_geo.errors import BadOptionError, L1bsrGeoError, L1bsrGeoWarning

app = typer.Typer(
    name="l1bsr-geo",
    help="Super-resolve satellite images in sensor geometry and write georeferenced rasters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_app = typer.Typer(help="List, fetch and import models.", no_args_is_help=True)
app.add_typer(models_app, name="models")
simulate_app = typer.Typer(help="Make products with known truth.", no_args_is_help=True)
app.add_typer(simulate_app, name="simulate")
console = Console(stderr=True)


class Sensor(StrEnum):
    """What the input is."""

    AUTO = "auto"
    S2_L1B = "s2-l1b"
    SKYSAT = "skysat"
    RASTER = "raster"


class Geometry(StrEnum):
    """Where the geometry of an L1B product comes from."""

    AUTO = "auto"
    GRIDS = "grids"
    MODEL = "model"
    FOOTPRINT = "footprint"


class DType(StrEnum):
    """Type of the output's pixels."""

    SOURCE = "source"
    UINT16 = "uint16"
    FLOAT32 = "float32"


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """How the network computes."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


Input = Annotated[Path, typer.Argument(help="L1B product (SAFE, .zip, EOPF Zarr) or a raster.")]
Output = Annotated[Path, typer.Argument(help="GeoTIFF to write.")]
SensorOption = Annotated[Sensor, typer.Option(help="What the input is.")]
DetectorOption = Annotated[
    int | None, typer.Option(min=1, max=12, help="Detector of an L1B product.")
]
BandsOption = Annotated[str | None, typer.Option(help="Bands, in order, such as B02,B03,B04,B08.")]
GeometryOption = Annotated[
    Geometry, typer.Option(help="Geometry of an L1B product; auto takes the best there is.")
]
GippOption = Annotated[Path | None, typer.Option(help="Folder of Sentinel-2 GIPP files.")]
AoiOption = Annotated[
    str | None, typer.Option(help="GeoJSON file, or west,south,east,north in degrees.")
]
CrsOption = Annotated[
    str | None, typer.Option(help="CRS of the map; the UTM zone of the centre by default.")
]
ResolutionOption = Annotated[
    float | None, typer.Option(min=0, help="Pixel size of the map [units of the CRS].")
]
DemOption = Annotated[Path | None, typer.Option(help="DEM file, or folder of tiles.")]
GeoidOption = Annotated[Path | None, typer.Option(help="Geoid undulations, added to the DEM.")]
HeightOption = Annotated[
    float, typer.Option(help="Ground height [m above the ellipsoid] where there is no DEM.")
]
NoOrthoOption = Annotated[
    bool, typer.Option("--no-ortho", help="Keep sensor geometry; the file gets control points.")
]
DTypeOption = Annotated[DType, typer.Option(help="Type of the output's pixels.")]
TileOption = Annotated[int | None, typer.Option(min=1, help="Largest core of a tile [px].")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]


def main() -> None:
    """Entry point: one line and exit code 2 for what a user can mend."""
    warnings.showwarning = _show_warning
    # GDAL would keep up to 5 % of the machine's memory in decoded blocks; tiles need a few rows
    os.environ.setdefault("GDAL_CACHEMAX", "128")
    try:
        app()
    except L1bsrGeoError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    console.print(f"[red]error:[/red] {_plain(message)}", soft_wrap=True, highlight=False)
    raise SystemExit(2)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Ours as one line; others only with -vv."""
    if issubclass(category, L1bsrGeoWarning):
        text = _plain(str(message))
        console.print(f"[yellow]warning:[/yellow] {text}", soft_wrap=True, highlight=False)
    else:
        logging.getLogger("py.warnings").debug("%s:%d: %s", filename, lineno, message)


def _plain(message: str) -> str:
    """One line, brackets not taken for markup."""
    from rich.markup import escape

    return escape(" ".join(message.split()))


def _show_version(value: bool) -> None:
    if value:
        print(f"l1bsr-geo {l1bsr_geo.__version__}")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more; -vv for all.")
    ] = 0,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Super-resolve satellite images in sensor geometry and write georeferenced rasters."""
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(
        level=levels[min(verbose, 2)],
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


@app.command()
def info(
    product: Annotated[Path, typer.Argument(help="L1B product.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what is in a Sentinel-2 L1B product, and how well it can be located."""
    from l1bsr_geo.readers.sentinel2_summary import summarize_product

    facts = summarize_product(product)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, title=facts["product"])
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), _lines(value))
    Console().print(table)


def _lines(value: Any) -> str:
    """A fact for reading: one line to each entry of a mapping."""
    if isinstance(value, dict):
        return "\n".join(f"{k}: {_plain_fact(v)}" for k, v in value.items())
    return _plain_fact(value)


def _plain_fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain_fact(v)}" for k, v in value.items())
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@app.command()
def sr(
    source: Input,
    output: Output,
    sensor: SensorOption = Sensor.AUTO,
    model: Annotated[
        str | None,
        typer.Option(help="Name of a model, see `models list`; geometric, or act for bursts."),
    ] = None,
    scale: Annotated[int | None, typer.Option(min=1, help="Fine pixels to a pixel.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights: ours, or a published checkpoint as downloaded.")
    ] = None,
    detector: DetectorOption = None,
    bands: BandsOption = None,
    geometry: GeometryOption = Geometry.AUTO,
    gipp: GippOption = None,
    camera: Annotated[str | None, typer.Option(help="Camera of a burst, such as c2.")] = None,
    start: Annotated[str | None, typer.Option(help="First frame of a burst: number, name.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a burst, at most.")] = 15,
    reference: Annotated[str, typer.Option(help="Of a burst: middle, first or INDEX.")] = "middle",
    layers: Annotated[
        Path | None, typer.Option(help="Second GeoTIFF: frame counts, noise gain of a burst.")
    ] = None,
    aoi: AoiOption = None,
    crs: CrsOption = None,
    resolution: ResolutionOption = None,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    height: HeightOption = 0.0,
    no_ortho: NoOrthoOption = False,
    dtype: DTypeOption = DType.SOURCE,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = Device.AUTO,
    precision: Annotated[
        Precision, typer.Option(help="How the network computes.")
    ] = Precision.AUTO,
    tile: TileOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Super-resolve: twice the resolution, bands aligned, georeferenced."""
    from l1bsr_geo.pipelines.super_resolution import super_resolve

    _run(
        super_resolve,
        "super-resolving",
        source,
        output,
        **_job(locals()),
        camera=camera,
        start=_number_or_name(start),
        frames=frames,
        reference=_number_or_name(reference),
        layers=layers,
        model=model,
        scale=scale,
        weights=weights,
        device=device.value,
        precision=precision.value,
        tile=tile,
    )


@app.command()
def register(
    source: Input,
    output: Output,
    sensor: SensorOption = Sensor.AUTO,
    detector: DetectorOption = None,
    bands: BandsOption = None,
    geometry: GeometryOption = Geometry.AUTO,
    gipp: GippOption = None,
    aoi: AoiOption = None,
    crs: CrsOption = None,
    resolution: ResolutionOption = None,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    height: HeightOption = 0.0,
    no_ortho: NoOrthoOption = False,
    dtype: DTypeOption = DType.SOURCE,
    tile: TileOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Align the bands to B03 at the input's resolution."""
    from l1bsr_geo.pipelines.bands import register as register_bands

    _run(register_bands, "registering", source, output, **_job(locals()), tile=tile)


@app.command()
def ortho(
    source: Input,
    output: Output,
    sensor: SensorOption = Sensor.AUTO,
    detector: DetectorOption = None,
    bands: BandsOption = None,
    geometry: GeometryOption = Geometry.AUTO,
    gipp: GippOption = None,
    aoi: AoiOption = None,
    crs: CrsOption = None,
    resolution: ResolutionOption = None,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    height: HeightOption = 0.0,
    dtype: DTypeOption = DType.SOURCE,
    overwrite: OverwriteOption = False,
) -> None:
    """Resample every band onto a map by its own geometry, without matching or restoring."""
    from l1bsr_geo.pipelines.bands import orthorectify_bands

    _run(orthorectify_bands, "orthorectifying", source, output, **_job(locals()))


@app.command()
def geolocate(
    product: Annotated[Path, typer.Argument(help="L1B product with its datastrip.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the grids; inside the product by default.")
    ] = None,
    detector: DetectorOption = None,
    bands: BandsOption = None,
    gipp: GippOption = None,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    height: HeightOption = 0.0,
    overwrite: OverwriteOption = False,
) -> None:
    """Write location grids (GEO_DATA) that GDAL >= 3.12 and Sen2VM users read."""
    from l1bsr_geo.pipelines.location_grids import write_location_grids

    with _progress("locating") as progress:
        written = write_location_grids(
            product,
            output,
            detector=detector,
            bands=_split(bands),
            gipp=gipp,
            dem=dem,
            geoid=geoid,
            height=height,
            overwrite=overwrite,
            progress=progress,
        )
    for path in written:
        print(path)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put everything.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the landscape.")] = 0,
) -> None:
    """Make a product, super-resolve it, and leave a COG and a before/after picture."""
    from l1bsr_geo.pipelines.demo import run_demo

    with _progress("super-resolving") as progress:
        result = run_demo(folder, seed=seed, progress=progress)
    for name, path in result.items():
        print(f"{name}: {path}")


@simulate_app.command("skysat")
def simulate_skysat_collect(
    image: Annotated[Path, typer.Argument(help="High-resolution raster of one band.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    pixel: Annotated[
        float | None, typer.Option(min=0.01, help="Pixel size [m] of an image without a map.")
    ] = None,
    mean: Annotated[float | None, typer.Option(help="Brightness to scale to [DN].")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many.")] = 15,
    rows: Annotated[int, typer.Option(min=16, help="Rows of a frame; real ones 1080.")] = 256,
    columns: Annotated[int, typer.Option(min=16, help="Columns; real ones 2560.")] = 320,
    geometry: Annotated[str, typer.Option(help="tags, text, pinhole; several by comma.")] = "tags",
    pointing_error: Annotated[float, typer.Option(min=0, help="Of stored geometry [px].")] = 3.0,
    exposures: Annotated[str, typer.Option(help="Relative, such as 1,0.5.")] = "1",
    noise: Annotated[float, typer.Option(min=0, help="Factor on the SkySat noise.")] = 1.0,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Write a SkySat all-frames collect as a camera over an image would have taken it."""
    from l1bsr_geo.pipelines.simulation import simulate_skysat

    made = simulate_skysat(
        image,
        folder,
        pixel=pixel,
        mean=mean,
        frames=frames,
        shape=(rows, columns),
        geometry=_split(geometry) or (),
        pointing_error=pointing_error,
        exposures=_numbers("--exposures", exposures),
        noise=noise,
        dem=dem,
        geoid=geoid,
        seed=seed,
    )
    print(made)


@models_app.command("list")
def list_models() -> None:
    """What models there are, and whether their weights are here."""
    from l1bsr_geo.models.checkpoint import find_cached
    from l1bsr_geo.models.registry import MODELS

    table = Table("name", "scale", "bands", "weights", "source")
    for name, entry in MODELS.items():
        spec = entry.spec
        if entry.weights is None:
            weights = "needs none"
        elif find_cached(name).is_file():
            weights = "here"
        else:
            weights = f"to fetch ({entry.weights.licence})"
        bands = " ".join(spec.bands) if spec.bands else "any"
        table.add_row(name, f"x{spec.scale}", bands, weights, spec.source)
    Console().print(table)


@models_app.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="Name of a model.")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the weights' licence unasked.")
    ] = False,
) -> None:
    """Download published weights from their authors, check them, and keep them converted."""
    from l1bsr_geo.models.published import fetch

    def ask(notice: str) -> bool:
        console.print(_plain(notice), soft_wrap=True, highlight=False)
        return accept_licence or (sys.stdin.isatty() and typer.confirm("Accept?", err=True))

    print(fetch(name, accept_licence=ask))


@models_app.command("import")
def import_model(
    path: Annotated[Path, typer.Argument(help="Published checkpoint, or safetensors of ours.")],
    name: Annotated[str | None, typer.Option(help="The model it is of, where in doubt.")] = None,
) -> None:
    """Convert a checkpoint that is on disk already."""
    from l1bsr_geo.models.published import import_weights

    print(import_weights(path, name))


def _job(arguments: dict[str, Any]) -> dict[str, Any]:
    """Command-line values of the options that every pipeline shares, as `Job` takes them."""
    from l1bsr_geo.pipelines.job import read_aoi

    plain = ("detector", "gipp", "crs", "resolution", "dem", "geoid", "height", "overwrite")
    job = {name: arguments[name] for name in plain}
    job |= {name: arguments[name].value for name in ("sensor", "geometry", "dtype")}
    job["bands"] = _split(arguments["bands"])
    job["aoi"] = None if arguments["aoi"] is None else read_aoi(arguments["aoi"])
    return job | {"ortho": not arguments.get("no_ortho", False)}


def _split(bands: str | None) -> tuple[str, ...] | None:
    return None if bands is None else tuple(b.strip() for b in bands.split(","))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadOptionError(f"{option} {text}: expected numbers such as 1,0.5") from None
    if not all(n > 0 for n in numbers):
        raise BadOptionError(f"{option} {text}: expected numbers above zero")
    return numbers


def _number_or_name(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _run(
    pipeline: Callable[..., Path], doing: str, source: Path, output: Path, **options: Any
) -> None:
    with _progress(doing) as progress:
        print(pipeline(source, output, progress=progress, **options))


@contextmanager
def _progress(doing: str) -> Iterator[Callable[[int, int], None] | None]:
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
            rate = f"{done / (time.monotonic() - start):.1f} blocks/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield advance
