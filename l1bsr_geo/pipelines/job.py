"""What every pipeline is asked: the job and its area of interest."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyproj
import pyproj.exceptions
import shapely
import shapely.geometry

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.georef.map_grid import AreaOfInterest
from l1bsr_geo.readers.inputs import Sensor
from l1bsr_geo.readers.sentinel2_geometry import Geometry
from l1bsr_geo.tiling.encoding import OutputType

PathLike: TypeAlias = str | os.PathLike[str]
Progress: TypeAlias = Callable[[int, int], None]

SENTINELHUB = "sentinelhub"
"""Where references are fetched from when no file is named."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is read and what is written; the same for every pipeline.

    Attributes:
        source: L1B product (SAFE folder, .zip of it, xml inside it, EOPF Zarr), SkySat burst
            (folder of frames, stack) or a raster.
        output: GeoTIFF to write.
        sensor: "s2-l1b", "skysat", "raster", or "auto" to look at the source.
        detector: of an L1B product, 1 to 12; not needed where there is only one.
        bands: names, in the order the model takes; its own where None.
        geometry: of an L1B product: "grids", "model", "footprint", or "auto" for the first there.
        gipp: folder of GIPP files for the instrument model.
        camera: of a burst, such as "c2"; not needed where there is only one.
        start: of a burst: its first frame, by running number or name.
        frames: of a burst: how many, at most.
        reference: of a burst: "middle", "first" or a frame's place in time, from 0.
        layers: of a burst: a second GeoTIFF, of frame counts and noise gain.
        uncertainty: of ``super_resolve``: one more GeoTIFF, of the standard deviation of the error
            [DN] of each pixel; up to eight times the work.
        aoi: area of interest in lon, lat; no more is read than it needs. A geometry also masks
            what is outside of it, a box (west, south, east, north) only cuts.
        crs: of the map; the UTM zone of the centre where None.
        resolution: of the map [units of crs]; of the pixels where None.
        dem: DEM file or folder of tiles.
        geoid: geoid undulations to add to the DEM.
        height: of the ground where there is no DEM [m above the ellipsoid].
        refine: ortho image that puts the geometry right, one translation; or "sentinelhub", to
            fetch one of the same day or the nearest clear one.
        ortho: False keeps sensor geometry.
        dtype: "source", "uint16" or "float32".
        report: of ``super_resolve``: a page (HTML) of before and after, and of figures.
        stac: write a STAC item beside the output, out.json beside out.tif.
        overwrite: replace an existing output.
        resume: go on from what a run of the same job left when it was killed; leave the same on
            failure.
    """

    source: PathLike
    output: PathLike
    sensor: Sensor = "auto"
    detector: int | None = None
    bands: Sequence[str] | None = None
    geometry: Geometry = "auto"
    gipp: PathLike | None = None
    camera: str | None = None
    start: int | str | None = None
    frames: int = 15
    reference: str | int = "middle"
    layers: PathLike | None = None
    uncertainty: PathLike | None = None
    aoi: AreaOfInterest | None = None
    crs: str | None = None
    resolution: float | None = None
    dem: PathLike | None = None
    geoid: PathLike | None = None
    height: float = 0.0
    refine: PathLike | None = None
    ortho: bool = True
    dtype: OutputType = "source"
    report: PathLike | None = None
    stac: bool = False
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible options before anything is read."""
        if self.crs is not None:
            try:
                pyproj.CRS.from_user_input(self.crs)
            except pyproj.exceptions.CRSError:
                raise BadOptionError(
                    f"--crs {self.crs}: not a coordinate reference system; give one such as "
                    "EPSG:32631"
                ) from None
        if self.resolution is not None and not 0 < self.resolution < math.inf:
            raise BadOptionError(f"--resolution {self.resolution}: must be more than 0")
        if not math.isfinite(self.height):
            raise BadOptionError(f"--height {self.height}: must be a height in metres")
        if self.geoid is not None and self.dem is None:
            raise BadOptionError("--geoid is added to a DEM; give --dem too")
        if not self.ortho and (self.crs or self.resolution):
            raise BadOptionError("--no-ortho keeps sensor geometry: leave out --crs, --resolution")

    @property
    def inputs(self) -> tuple[PathLike, ...]:
        """All that it names to be read, of which nothing may be written over."""
        named = (self.source, self.gipp, self.dem, self.geoid, self.refine)
        return tuple(path for path in named if path is not None and path != SENTINELHUB)

    @property
    def area(self) -> shapely.Geometry | None:
        """The area of interest as a geometry."""
        return shapely.box(*self.aoi) if isinstance(self.aoi, tuple) else self.aoi


def _geometries(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every geometry of a GeoJSON document; features without one are left out."""
    if document["type"] == "FeatureCollection":
        return [g for feature in document["features"] for g in _geometries(feature)]
    if document["type"] == "Feature":
        return [document["geometry"]] if document["geometry"] else []
    return [document]


def read_aoi(text: str) -> AreaOfInterest:
    """An area of interest: a GeoJSON file (RFC 7946, lon, lat), or "west,south,east,north".

    Raises:
        MissingInputError: no such file.
        BadInputError: not a GeoJSON of areas.
        BadOptionError: a box that is none.
    """
    parts = text.split(",")
    if len(parts) == 4:
        try:
            west, south, east, north = map(float, parts)
        except ValueError:
            raise BadOptionError(
                f"--aoi {text}: expected four numbers west,south,east,north in degrees"
            ) from None
        if not (-360 <= west < east <= 360 and -90 <= south < north <= 90):
            raise BadOptionError(f"--aoi {text}: expected west < east and south < north in degrees")
        return west, south, east, north
    path = Path(text)
    if not path.is_file():
        raise MissingInputError(
            f"--aoi {text}: no such file; give a GeoJSON file or west,south,east,north"
        )
    try:
        shapes = _geometries(json.loads(path.read_bytes()))
        area = shapely.union_all([shapely.make_valid(shapely.geometry.shape(s)) for s in shapes])
    except (
        shapely.errors.ShapelyError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise BadInputError(
            f"{path}: not a GeoJSON ({error}); give polygons in lon, lat (RFC 7946)"
        ) from None
    west, south, east, north = area.bounds
    if area.is_empty or area.area == 0 or not (west >= -360 and east <= 360 and north <= 90):
        raise BadInputError(
            f"{path}: found {area.geom_type} with bounds {area.bounds}, expected polygons in "
            "degrees, lon, lat (RFC 7946)"
        )
    return area
