"""The command `l1bsr-geo`."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import l1bsr_geo
from l1bsr_geo.cli import batch, catalog, denoise, evaluate, finetune, models, simulate, stac, train
from l1bsr_geo.cli.console import fail, show_progress, show_warning
from l1bsr_geo.cli.options import (
    AoiOption,
    BandsOption,
    CameraOption,
    CrsOption,
    DemOption,
    DetectorOption,
    Device,
    DeviceOption,
    DType,
    DTypeOption,
    FramesOption,
    GeoidOption,
    Geometry,
    GeometryOption,
    GippOption,
    HeightOption,
    Input,
    NoOrthoOption,
    Output,
    OverwriteOption,
    Precision,
    PrecisionOption,
    ReferenceOption,
    RefineOption,
    ResolutionOption,
    ResumeOption,
    ScaleOption,
    SchedulerOption,
    Sensor,
    SensorOption,
    StacOption,
    StartOption,
    TileOption,
    WorkersOption,
    number_or_name,
    read_job,
    split_names,
)
from l1bsr_geo.errors import L1bsrGeoError
from l1bsr_geo.tiling.allocator import reuse_large_arrays

app = typer.Typer(
    name="l1bsr-geo",
    help="Super-resolve satellite images in sensor geometry and write georeferenced rasters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
USAGE_ERROR: Any = typer.BadParameter.__base__  # of the click that typer brings along
app.add_typer(models.app, name="models")
app.add_typer(catalog.app, name="catalog")
app.add_typer(simulate.app, name="simulate")
app.command("batch")(batch.run_jobs)
app.command("train")(train.train_network)
app.command("finetune")(finetune.finetune_network)
app.command("denoise")(denoise.denoise_video)
app.command("evaluate")(evaluate.evaluate_result)
app.command("stac")(stac.write_items)


def main(arguments: Sequence[str] | None = None, name: str | None = None) -> None:
    """Entry point: one line and exit code 2 for what a user can mend.

    Args:
        arguments: of the command line; this process's own where None.
        name: what usage calls the command.
    """
    warnings.showwarning = show_warning
    # GDAL would keep up to 5 % of the machine's memory in decoded blocks; tiles need a few rows
    os.environ.setdefault("GDAL_CACHEMAX", "64")
    reuse_large_arrays()
    os.environ.setdefault("CPL_LOG", os.devnull)  # what GDAL finds wrong is in our one line
    given = sys.argv[1:] if arguments is None else arguments
    loud = [word for word in given if word in ("-v", "-vv", "--verbose")]
    words = [word for word in given if word not in loud]  # -v may stand anywhere
    try:
        code = app([*loud, *words], standalone_mode=False, prog_name=name)
    except L1bsrGeoError as error:
        fail(str(error))
    except USAGE_ERROR as error:
        fail(error.format_message())
    except typer.Abort:
        raise SystemExit(130) from None
    except MemoryError as error:
        fail(f"the memory is not enough ({error}); use a smaller --tile, or --aoi")
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}")
    raise SystemExit(code or 0)


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
        typer.Option(
            help="Name of a model, see `models list`, or a file: .onnx, .pt2, or the .yaml spec "
            "of one; learned ones by default."
        ),
    ] = None,
    scale: ScaleOption = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights: ours, or a published checkpoint as downloaded.")
    ] = None,
    detector: DetectorOption = None,
    bands: BandsOption = None,
    geometry: GeometryOption = Geometry.AUTO,
    gipp: GippOption = None,
    camera: CameraOption = None,
    start: StartOption = None,
    frames: FramesOption = 15,
    reference: ReferenceOption = "middle",
    layers: Annotated[
        Path | None, typer.Option(help="Second GeoTIFF: frame counts, noise gain of a burst.")
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(help="One more GeoTIFF: standard deviation of the error [DN]; 3 to 9 x time."),
    ] = None,
    aoi: AoiOption = None,
    crs: CrsOption = None,
    resolution: ResolutionOption = None,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    height: HeightOption = 0.0,
    refine: RefineOption = None,
    no_ortho: NoOrthoOption = False,
    dtype: DTypeOption = DType.SOURCE,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = Precision.AUTO,
    tile: TileOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Page (HTML): before and after, figures.")
    ] = None,
    stac: StacOption = False,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Super-resolve: twice the resolution, bands aligned, georeferenced."""
    from l1bsr_geo.pipelines.super_resolution import super_resolve

    _run(
        super_resolve,
        "super-resolving",
        source,
        output,
        **read_job(locals()),
        camera=camera,
        start=number_or_name(start),
        frames=frames,
        reference=number_or_name(reference),
        layers=layers,
        uncertainty=uncertainty,
        report=report,
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
    refine: RefineOption = None,
    no_ortho: NoOrthoOption = False,
    dtype: DTypeOption = DType.SOURCE,
    tile: TileOption = None,
    stac: StacOption = False,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Align the bands to B03 at the input's resolution."""
    from l1bsr_geo.pipelines.bands import register as register_bands

    _run(register_bands, "registering", source, output, **read_job(locals()), tile=tile)


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
    refine: RefineOption = None,
    dtype: DTypeOption = DType.SOURCE,
    stac: StacOption = False,
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Resample every band onto a map by its own geometry, without matching or restoring."""
    from l1bsr_geo.pipelines.bands import orthorectify_bands

    _run(orthorectify_bands, "orthorectifying", source, output, **read_job(locals()))


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

    with show_progress("locating") as progress:
        written = write_location_grids(
            product,
            output,
            detector=detector,
            bands=split_names(bands),
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
    seed: Annotated[int, typer.Option(min=0, help="Of the landscape.")] = 0,
) -> None:
    """Make a product, super-resolve it, and leave a COG, a report and a before/after picture."""
    from l1bsr_geo.pipelines.demo import run_demo

    with show_progress("super-resolving") as progress:
        result = run_demo(folder, seed=seed, progress=progress)
    for name, path in result.items():
        print(f"{name}: {path}")


def _run(
    pipeline: Callable[..., Path], doing: str, source: Path, output: Path, **options: Any
) -> None:
    with show_progress(doing) as progress:
        print(pipeline(source, output, progress=progress, **options))
