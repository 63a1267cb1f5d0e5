"""Drivers of HydroMT 1: Sentinel-2 L1B and SkySat bursts as RasterDatasets, weights as Datasets.

    from hydromt import DataCatalog
    area = [-17, 32.6, -16.9, 32.7]
    bands = DataCatalog("data_catalog.yaml").get_rasterdataset("madeira", bbox=area)

A RasterDataset has a CRS: images are drawn on a map, each band or frame by its own geometry, as
`l1bsr-geo ortho` draws them, lazily. With ``ortho: false`` they stay in their own pixels, whose CRS
is then an engineering one. HydroMT finds them through the entry point ``hydromt.drivers``.
"""

import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import safetensors.numpy
import shapely
import xarray as xr
from hydromt.data_catalog.drivers import DatasetDriver, RasterDatasetDriver
from hydromt.data_catalog.drivers.base_driver import DriverOptions
from hydromt.error import NoDataStrategy, exec_nodata_strat
from pydantic import ConfigDict, Field

import l1bsr_geo
from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.cog import write_cog
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.models.checkpoint import read_checkpoint, read_facts
from l1bsr_geo.pipelines.bands import draw_lazily, read_stack
from l1bsr_geo.pipelines.datasets import as_dataset, frames_of, frames_on_map
from l1bsr_geo.pipelines.job import Job
from l1bsr_geo.readers.skysat import read_burst

Box: TypeAlias = tuple[float, float, float, float]

__hydromt_eps__ = ["SentinelL1BDriver", "SkySatL1ADriver", "WeightsDriver"]

_MARGIN = 0.01  # [degrees] around a box, for the buffer that HydroMT cuts with


class _Options(DriverOptions):
    """What both sensors are asked; see ``pipelines.job.Job``."""

    model_config = ConfigDict(extra="forbid")

    ortho: bool | None = Field(None, description="On a map; None where there is a geometry.")
    crs: str | None = Field(None, description="Of the map; the UTM zone of the centre if None.")
    resolution: float | None = Field(None, description="Of the map [units of its CRS].")
    dem: str | None = Field(None, description="DEM file, or folder of tiles.")
    geoid: str | None = Field(None, description="Geoid undulations, added to the DEM.")
    height: float = Field(0.0, description="Of the ground without a DEM [m above the ellipsoid].")


class SentinelL1BOptions(_Options):
    """Options of ``s2_l1b``."""

    detector: int | None = Field(None, description="1 to 12; not needed where there is one.")
    bands: list[str] | None = Field(None, description="Such as [B02, B03]; the 10 m ones if None.")
    geometry: Literal["auto", "grids", "model", "footprint"] = Field("auto", description="Kind.")
    gipp: str | None = Field(None, description="Folder of GIPP files.")


class SkySatL1AOptions(_Options):
    """Options of ``skysat_l1a``."""

    camera: str | None = Field(None, description="Such as c2; not needed where there is one.")
    start: int | str | None = Field(None, description="First frame: number or name.")
    frames: int = Field(15, description="How many, at most.")
    reference: int | str = Field("middle", description="middle, first, or a place in time.")


class _SensorDriver(RasterDatasetDriver, ABC):
    """What both sensors share: options from the catalog, the area."""

    options: _Options

    def read(
        self,
        uris: list[str],
        *,
        handle_nodata: NoDataStrategy = NoDataStrategy.RAISE,
        mask: Any = None,
        variables: Any = None,
        zoom: Any = None,
        chunks: dict[str, Any] | None = None,
        metadata: Any = None,
    ) -> xr.Dataset:
        """Open a product, burst or raster; no pixel is read before it is computed.

        Args:
            uris: one path.
            handle_nodata: what to do where ``mask`` does not touch it.
            mask: GeoDataFrame, whose bounds cut the map.
            variables: names of bands.
            zoom: not used: the option ``resolution`` chooses it.
            chunks: of the result.
            metadata: of the source; ``l1bsr_geo`` in it gives options that the driver's lack.

        Raises:
            BadOptionError: several paths, or a mask for pixels that are on no map.
            L1bsrGeoError: the reader's.
        """
        if len(uris) != 1:
            raise BadOptionError(
                f"{len(uris)} images match, such as {', '.join(sorted(uris)[:2])}; one at a time "
                "is opened: give a uri without wildcards (`l1bsr-geo catalog add NAME PATH`)"
            )
        if zoom is not None:
            warnings.warn(
                L1bsrGeoWarning(f"zoom {zoom} is not used; the driver option resolution is"),
                stacklevel=2,
            )
        options = self._with_metadata(metadata)
        box = None if mask is None else _find_box(mask)
        data = self._open(Path(uris[0]), options, variables, box)
        if data is None:
            exec_nodata_strat(f"{uris[0]}: nothing of it is inside {box}", handle_nodata)
            return None  # type: ignore[return-value]  # HydroMT's way to say so
        return data if chunks is None else data.chunk(chunks)

    @abstractmethod
    def _open(self, path: Path, options: Any, bands: Any, box: Box | None) -> xr.Dataset | None:
        """The dataset of a path; None where nothing of it is inside the box."""

    def _with_metadata(self, metadata: Any) -> Any:
        """The driver's options, and where it has none those of ``metadata.l1bsr_geo``."""
        told = getattr(metadata, "l1bsr_geo", None) or {}
        known = {k: v for k, v in told.items() if k in type(self.options).model_fields}
        return type(self.options)(**known | self.options.model_dump(exclude_unset=True))


class SentinelL1BDriver(_SensorDriver):
    """A detector of a Sentinel-2 L1B product, or a raster of Sentinel-2 bands: ``s2_l1b``.

    A variable for each band, DN as on disk, ``_FillValue`` where there is no data.
    """

    name: ClassVar[str] = "s2_l1b"
    supports_writing: ClassVar[bool] = True
    options: SentinelL1BOptions = Field(default_factory=SentinelL1BOptions)

    def _open(
        self, path: Path, options: SentinelL1BOptions, bands: Any, box: Box | None
    ) -> xr.Dataset | None:
        job = _job(
            path, options, box, detector=options.detector, geometry=options.geometry,
            gipp=options.gipp,
        )  # fmt: skip
        wanted = options.bands if bands is None else np.atleast_1d(bands).tolist()
        stack = read_stack(job, wanted)
        grid = stack.grids[stack.reference]
        if not _wants_map(options, grid, box, path):
            return as_dataset(stack.pixels, stack.nodata, stack.attrs)
        if box is not None and not _touches(grid, options.height, box):
            return None
        image = draw_lazily(job, stack).image
        pixels, nodata = image.pixels, image.pixels.attrs.get("nodata")
        if image.valid is not None and nodata is not None:
            pixels = pixels.where(image.valid, np.asarray(nodata, pixels.dtype))
        return as_dataset(pixels, nodata, stack.attrs)

    def write(
        self,
        path: Path | str,
        data: xr.Dataset,
        *,
        write_kwargs: dict[str, Any] | None = None,
    ) -> Path:
        """Write what ``read`` gave, or a part of it, as a cloud-optimized GeoTIFF.

        Args:
            path: of the file; it gets the ending .tif.
            data: variables on one map grid.
            write_kwargs: of ``georef.cog.write_cog``, such as overwrite.

        Raises:
            BadInputError: it is not on a map.
            L1bsrGeoError: as ``write_cog``.
        """
        target = Path(path).with_suffix(".tif")
        target.parent.mkdir(parents=True, exist_ok=True)
        tags = {"software": f"l1bsr_geo {l1bsr_geo.__version__}"}
        tags |= {k: v for k, v in data.attrs.items() if isinstance(v, str)}
        return write_cog(_as_image(data), target, **{"tags": tags, **(write_kwargs or {})})


class SkySatL1ADriver(_SensorDriver):
    """The frames of a SkySat burst, or of any stack: ``skysat_l1a``.

    One variable, named as the burst's band, with the axis ``time`` (``frame`` where frames have no
    times). Frames are where their own camera models say, which is some pixels from each other; on
    the map they are float32, NaN where a frame does not reach.
    """

    name: ClassVar[str] = "skysat_l1a"
    options: SkySatL1AOptions = Field(default_factory=SkySatL1AOptions)

    def _open(
        self, path: Path, options: SkySatL1AOptions, bands: Any, box: Box | None
    ) -> xr.Dataset | None:
        burst = read_burst(path, options.camera, options.start, options.frames, options.reference)
        on_map = _wants_map(options, burst.grids[0], box, path)
        if on_map and box is not None and not _touches(burst.grids[0], options.height, box):
            return None
        frames = frames_on_map(_job(path, options, box), burst) if on_map else frames_of(burst)
        return as_dataset(frames, None if on_map else burst.nodata, burst.attrs)

    def write(
        self,
        path: Path | str,
        data: xr.Dataset,
        *,
        write_kwargs: dict[str, Any] | None = None,
    ) -> Path:
        """Refuse: frames on a map are no burst any more; HydroMT writes them itself.

        Raises:
            BadOptionError: always.
        """
        raise BadOptionError(
            f"{path}: frames that were read from a burst are not written as one; use HydroMT's "
            "driver raster_xarray (netCDF, Zarr)"
        )


class WeightsDriver(DatasetDriver):
    """The parameters of a network, a variable each: ``l1bsr_weights``."""

    name: ClassVar[str] = "l1bsr_weights"
    supports_writing: ClassVar[bool] = True

    def read(
        self, uris: list[str], *, handle_nodata: NoDataStrategy = NoDataStrategy.RAISE
    ) -> xr.Dataset:
        """Parameters of a safetensors file or a published checkpoint; no code in it is run.

        Raises:
            WeightsError: the file holds no weights.
        """
        path = Path(uris[0])
        arrays = {name: tensor.numpy() for name, tensor in read_checkpoint(path).items()}
        variables = {
            name: ([f"{name}.{axis}" for axis in range(array.ndim)], array)
            for name, array in arrays.items()
        }
        return xr.Dataset(variables, attrs=read_facts(path))

    def write(
        self, path: Path | str, data: xr.Dataset, *, write_kwargs: dict[str, Any] | None = None
    ) -> Path:
        """Write parameters as safetensors, with what the attributes say as text."""
        target = Path(path).with_suffix(".safetensors")
        target.parent.mkdir(parents=True, exist_ok=True)
        arrays = {str(k): np.ascontiguousarray(v.values) for k, v in data.data_vars.items()}
        facts = {str(k): v for k, v in data.attrs.items() if isinstance(v, str)}
        target.write_bytes(safetensors.numpy.save(arrays, facts))
        return target


def _job(path: Path, options: _Options, box: Box | None, **more: Any) -> Job:
    """What pipelines are asked; nothing is written."""
    return Job(
        source=path,
        output="",
        aoi=box,
        crs=options.crs,
        resolution=options.resolution,
        dem=options.dem,
        geoid=options.geoid,
        height=options.height,
        **more,
    )


def _wants_map(options: _Options, grid: GeoGrid, box: Box | None, path: Path) -> bool:
    """Whether the image is drawn on a map.

    Raises:
        BadOptionError: an area, a CRS or a resolution without a map.
    """
    on_map = options.ortho if options.ortho is not None else grid.model is not None
    if not on_map and not (box is None and options.crs is None and options.resolution is None):
        why = "the option ortho is false" if options.ortho is False else "it has no geometry"
        raise BadOptionError(
            f"{path}: stays in its own pixels ({why}), so neither an area nor a CRS nor a "
            "resolution can be asked for"
        )
    return on_map


def _find_box(mask: Any) -> Box:
    """West, south, east, north of a mask, grown for the buffer that HydroMT cuts with."""
    west, south, east, north = map(float, mask.to_crs(4326).total_bounds)
    return west - _MARGIN, south - _MARGIN, east + _MARGIN, north + _MARGIN


def _touches(grid: GeoGrid, height: float, box: Box) -> bool:
    return bool(grid.footprint(height).intersects(shapely.box(*box)))


def _as_image(data: xr.Dataset | xr.DataArray) -> GeoImage:
    """What ``read`` gave, or a part of it, as it is written."""
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name="data" if data.name is None else data.name)
    crs = data.raster.crs
    if crs.is_engineering:
        raise BadInputError("the image is in its own pixels; only one on a map is written (ortho)")
    nodata = [variable.attrs.get("_FillValue") for variable in data.data_vars.values()]
    bands = data.to_array("band").drop_attrs()
    height, width = bands.shape[1:]
    grid = GeoGrid((height, width), AffineModel(data.raster.transform, crs.to_string()))
    if nodata[0] is None:
        return GeoImage(bands, grid)
    return GeoImage(bands.assign_attrs(nodata=nodata[0]), grid, (bands != nodata[0]).any("band"))
