"""Options that commands share, and how their text becomes values."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from l1bsr_geo.errors import BadOptionError


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
    float | None, typer.Option(min=0, help="Pixel size of the map, in units of its CRS.")
]
DemOption = Annotated[Path | None, typer.Option(help="DEM file, or folder of tiles.")]
GeoidOption = Annotated[Path | None, typer.Option(help="Geoid undulations, added to the DEM.")]
HeightOption = Annotated[
    float, typer.Option(help="Ground height where there is no DEM, metres above the ellipsoid.")
]
RefineOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|sentinelhub",
        help="Ortho image that puts the geometry right, one translation; or fetch one.",
    ),
]
NoOrthoOption = Annotated[
    bool, typer.Option("--no-ortho", help="Keep sensor geometry; the file gets control points.")
]
DTypeOption = Annotated[DType, typer.Option(help="Type of the output's pixels.")]
DeviceOption = Annotated[Device, typer.Option(help="Where the network runs.")]
PrecisionOption = Annotated[Precision, typer.Option(help="How the network computes.")]
ScaleOption = Annotated[int | None, typer.Option(min=1, help="Fine pixels to a pixel.")]
CameraOption = Annotated[str | None, typer.Option(help="Camera of a burst, such as c2.")]
StartOption = Annotated[str | None, typer.Option(help="First frame of a burst: number, name.")]
FramesOption = Annotated[int, typer.Option(min=1, help="Frames of a burst, at most.")]
ReferenceOption = Annotated[str, typer.Option(help="Of a burst: middle, first or INDEX.")]
TileOption = Annotated[int | None, typer.Option(min=1, help="Largest core of a tile, pixels.")]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on from what a killed run of the same left; leave it on failure."
    ),
]
SchedulerOption = Annotated[
    str | None, typer.Option(help="Dask scheduler to work with, such as tcp://10.0.0.1:8786.")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Worker processes to start here, such as one per GPU.")
]
StacOption = Annotated[
    bool, typer.Option("--stac", help="Write a STAC item beside the output, OUT.json.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]


def read_job(arguments: dict[str, Any]) -> dict[str, Any]:
    """Command-line values of the options that every pipeline shares, as `Job` takes them."""
    from l1bsr_geo.pipelines.job import read_aoi

    plain = ("detector", "gipp", "crs", "resolution", "dem", "geoid", "height", "refine")
    running = ("scheduler", "workers", "stac", "resume", "overwrite")
    job = {name: arguments[name] for name in (*plain, *running)}
    job |= {name: arguments[name].value for name in ("sensor", "geometry", "dtype")}
    job["bands"] = split_names(arguments["bands"])
    job["aoi"] = None if arguments["aoi"] is None else read_aoi(arguments["aoi"])
    return job | {"ortho": not arguments.get("no_ortho", False)}


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Names parted by commas."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def split_numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers above zero, parted by commas, of an option.

    Raises:
        BadOptionError: something else.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadOptionError(f"{option} {text}: expected numbers such as 1,0.5") from None
    if not all(n > 0 for n in numbers):
        raise BadOptionError(f"{option} {text}: expected numbers above zero")
    return numbers


def number_or_name(text: str | None) -> int | str | None:
    """An index where it looks like one."""
    return int(text) if text is not None and text.isdecimal() else text
