"""`l1bsr-geo simulate`: products with known truth."""

from pathlib import Path
from typing import Annotated

import typer

from l1bsr_geo.cli.options import DemOption, GeoidOption, split_names, split_numbers

app = typer.Typer(help="Make products with known truth.", no_args_is_help=True)


@app.callback()
def common() -> None:
    """Make products with known truth."""


@app.command("skysat")
def simulate_skysat_collect(
    image: Annotated[Path, typer.Argument(help="High-resolution raster of one band.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    pixel: Annotated[
        float | None, typer.Option(min=0.01, help="Pixel size of an image without a map, metres.")
    ] = None,
    mean: Annotated[float | None, typer.Option(help="Brightness to scale to [DN].")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many.")] = 15,
    rows: Annotated[int, typer.Option(min=16, help="Rows of a frame; real ones 1080.")] = 256,
    columns: Annotated[int, typer.Option(min=16, help="Columns; real ones 2560.")] = 320,
    geometry: Annotated[str, typer.Option(help="tags, text, pinhole; several by comma.")] = "tags",
    pointing_error: Annotated[float, typer.Option(min=0, help="Of stored geometry, pixels.")] = 3.0,
    exposures: Annotated[str, typer.Option(help="Relative, such as 1,0.5.")] = "1",
    noise: Annotated[float, typer.Option(min=0, help="Factor on the SkySat noise.")] = 1.0,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
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
        geometry=split_names(geometry) or (),
        pointing_error=pointing_error,
        exposures=split_numbers("--exposures", exposures),
        noise=noise,
        dem=dem,
        geoid=geoid,
        seed=seed,
    )
    print(made)
