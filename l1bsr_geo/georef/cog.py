"""write_cog: a lazy image becomes a cloud-optimized GeoTIFF, in one step, within its own size."""

import errno
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import dask.array as da
import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.dtypes import check_dtype
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.rpc import RPC

import l1bsr_geo
from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    L1bsrGeoError,
    MissingInputError,
    OutputExistsError,
)
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation, localize_on_terrain
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.parts import Parts, SizeArray, TileShelf, open_parts
from l1bsr_geo.georef.pyramid import (
    TileFormat,
    assemble,
    average_tile,
    encode_lazily,
    level_shapes,
)
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.tiling.stream import compute_in_runs, count_threads

log = logging.getLogger(__name__)

_GCPS_PER_SIDE = 20


def write_cog(
    image: GeoImage,
    path: str | os.PathLike[str],
    *,
    tags: Mapping[str, str],
    sources: Sequence[str | os.PathLike[str]] = (),
    overwrite: bool = False,
    block: int = 512,
    elevation: Elevation | None = None,
    bigtiff: bool | None = None,
    made_of: Mapping[str, str] | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write an image as a cloud-optimized GeoTIFF (deflate, internal mask, overviews).

    Pixels and mask are computed block by block, by the dask client that the program works with or
    by dask's threads; memory is bounded by the blocks in flight, disk by the size of the file.
    Encoded blocks wait in a hidden folder beside ``path`` and the finished file is renamed to
    ``path``, so there is either a whole file or none. A process that is killed leaves that folder,
    and ``resume`` goes on from it.

    Georeferencing follows ``image.grid``: a map grid (``AffineModel``) gives CRS and transform. Any
    other model keeps sensor geometry: the file gets the RPCs of ``attrs["rpcs"]`` if there are any,
    else up to 400 ground control points sampled from the model on the terrain, the corners of the
    image included. An image without a model gets neither.

    What ``image.pixels.attrs`` may tell of the pixels (everything else is ignored):
        nodata: the value on disk that means no data. Pixels that are not valid are set to it.
            Where None, floats take NaN and whole numbers are masked only (and hold 0).
        scale_factor, add_offset: physical value = DN * scale_factor + add_offset; one number, or
            one per band (sequence in band order, or mapping by band name).
        units: of the physical value.
        wavelengths: centre wavelength [nm] by band name.
        rpcs: a ``rasterio.rpc.RPC`` of exactly these pixels.

    Args:
        image: (band, y, x), any chunks; blocks are computed fastest where chunks are ``block``.
        path: the file to write; its folder must exist.
        tags: provenance, written as they are (GDAL's default metadata domain).
        sources: files that the image is computed from; ``path`` must not be one of them.
        overwrite: replace ``path`` if it exists.
        block: side of a tile [px], a multiple of 16.
        elevation: terrain for the control points; height 0 if None.
        bigtiff: None writes BigTIFF only when the file needs it (4 GiB).
        made_of: what the pixels depend on, by name (input, model, options); what ``resume``
            compares.
        resume: go on from the blocks that an earlier run of the same left; a run that fails then
            leaves its own.
        progress: called with the blocks done and the blocks in all (overviews included), from one
            thread at a time.

    Returns:
        ``path``.

    Raises:
        OutputExistsError: ``path`` exists and ``overwrite`` is not set.
        MissingInputError: the folder of ``path`` does not exist.
        BadOptionError: ``path`` is one of the sources, cannot be written, or another run is writing
            it; a bad ``block``; what is to be resumed was made of something else.
        BadInputError: pixels of a type that GeoTIFF does not hold, or of another shape than the
            grid; a wrong number of scale factors.
        ClusterError: the cluster went away.
        L1bsrGeoError: the disk is full.
    """
    path = Path(path)
    check_destination(path, sources, overwrite=overwrite)
    tile_format = _choose_format(image, block)
    template = _write_template(image, tile_format, tags, elevation or ConstantElevation())
    made_of = dict(made_of or {}) | _say_format(image, tile_format)
    try:
        with open_parts(path, made_of, resume=resume) as parts:
            writer = _Writer(parts, tile_format, image.grid.shape, progress)
            template = parts.keep_template(template)
            sizes = parts.read_sizes()
            if sizes is None:
                sizes = writer.write(image)
                parts.keep_sizes(sizes)
            assemble(parts, template, writer.shapes, sizes, bigtiff=bigtiff)
            check_destination(path, sources, overwrite=overwrite)
            os.replace(parts.whole, path)
    except PermissionError as error:
        raise BadOptionError(f"{path}: cannot be written ({error.strerror})") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            done = "what is done waits for --resume" if resume else "nothing was written"
            raise L1bsrGeoError(
                f"{path}: the disk is full; {done}; free some space, or write elsewhere"
            ) from error
        if error.filename is None and error.errno != errno.EFBIG:
            raise
        raise BadOptionError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def check_destination(
    path: Path, sources: Sequence[str | os.PathLike[str]], *, overwrite: bool
) -> None:
    """Whether a file can be written, before anything is computed for it.

    Args:
        path: the file.
        sources: files that it is computed from.
        overwrite: whether it may exist.

    Raises:
        OutputExistsError: it exists and may not.
        MissingInputError: its folder does not exist.
        BadOptionError: it is a folder, one of the sources, or a file of a source that is a folder.
    """
    if not path.parent.is_dir():
        raise MissingInputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise BadOptionError(f"{path}: is a folder; give the name of a file, such as out.tif")
    for source in map(Path, sources):
        if source.exists() and path.exists() and source.samefile(path):
            raise BadOptionError(f"{path}: is an input, too; write to another file")
        if path.exists() and source.resolve() in path.resolve().parents:
            raise BadOptionError(f"{path}: is a file of the input {source}; write elsewhere")
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path}: exists already; write to another file, or add --overwrite"
        )


def _choose_format(image: GeoImage, block: int) -> TileFormat:
    pixels = image.pixels
    if block < 16 or block % 16:
        raise BadOptionError(f"the block size is {block}; it must be a multiple of 16")
    if pixels.shape[-2:] != tuple(image.grid.shape) or 0 in pixels.shape:
        raise BadInputError(
            f"the pixels are {pixels.shape} (band, y, x), but their grid is {image.grid.shape}"
        )
    if not check_dtype(pixels.dtype) or pixels.dtype.kind not in "iuf":
        raise BadInputError(f"the pixels are {pixels.dtype}, which GeoTIFF does not hold")
    nodata = pixels.attrs.get("nodata")
    if nodata is None and pixels.dtype.kind == "f":
        nodata = float("nan")
    return TileFormat(pixels.shape[0], pixels.dtype, nodata, block)


class _Writer:
    """Stores the tiles of all levels, full resolution first, and counts them."""

    def __init__(
        self,
        parts: Parts,
        form: TileFormat,
        shape: tuple[int, int],
        report: Callable[[int, int], None] | None,
    ) -> None:
        self.shapes = level_shapes(shape, form.size)
        tiles = [(-(-height // form.size), -(-width // form.size)) for height, width in self.shapes]
        self.sizes = [np.full((*n, 2), -1, np.int64) for n in tiles]
        self._parts, self._form, self._report = parts, form, report
        self._lock = Lock()

    def write(self, image: GeoImage) -> list[SizeArray]:
        """What the parts do not hold yet, level by level: each needs the last one."""
        missing = self._missing(0)
        stored = self.sizes[0][..., 0].size - len(missing)
        if stored:
            log.info("%d of %d blocks were there already", stored, stored + len(missing))
        graph, places = encode_lazily(self._form, *_as_dask(image, self._form.size), missing)

        def store(key: Any, data: bytes | None) -> None:
            self._store(0, *places[key], data)

        compute_in_runs(graph, list(places), store, TileShelf(self._parts.folder))
        pool = ThreadPoolExecutor(count_threads())
        try:
            for level in range(1, len(self.sizes)):
                for _ in pool.map(partial(self._average, level), self._missing(level)):
                    pass  # its errors are raised here
        finally:
            pool.shutdown(cancel_futures=True)
        return self.sizes

    def _missing(self, level: int) -> list[tuple[int, int]]:
        """The places of tiles that are not stored; the sizes of those that are."""
        missing = []
        for row, col in np.ndindex(self.sizes[level].shape[:2]):
            size = self._parts.measure(level, row, col)
            if size is None:
                missing.append((row, col))
            else:
                self.sizes[level][row, col] = size
        return missing

    def _average(self, level: int, place: tuple[int, int]) -> None:
        self._store(level, *place, average_tile(self._form, self._parts, level, *place))

    def _store(self, level: int, row: int, col: int, data: bytes | None) -> None:
        size = self._parts.add(level, row, col, data)
        with self._lock:
            self.sizes[level][row, col] = size
            if self._report is not None:
                done = sum(int((sizes[..., 0] >= 0).sum()) for sizes in self.sizes)
                self._report(done, sum(sizes[..., 0].size for sizes in self.sizes))


def _say_format(image: GeoImage, form: TileFormat) -> dict[str, str]:
    """What else the stored blocks depend on."""
    height, width = image.grid.shape
    return {
        "size": f"{height} x {width} px, {form.count} bands",
        "blocks": f"{form.size} px of {form.dtype}, nodata {form.nodata}",
        "version": l1bsr_geo.__version__,
    }


def _as_dask(image: GeoImage, size: int) -> tuple[da.Array, da.Array]:
    """Pixels and mask as dask arrays; what is in memory already is only cut."""
    chunks = (-1, size, size)
    pixels = image.pixels.data
    if not isinstance(pixels, da.Array):
        pixels = da.from_array(pixels, chunks=chunks, name=False)
    if image.valid is None:
        return pixels, da.ones(pixels.shape[1:], dtype=bool, chunks=pixels.chunks[1:])
    valid = image.valid.data
    if not isinstance(valid, da.Array):
        valid = da.from_array(valid, chunks=chunks[1:], name=False)
    return pixels, valid.astype(bool)


def _write_template(
    image: GeoImage, tile_format: TileFormat, tags: Mapping[str, str], elevation: Elevation
) -> bytes:
    """A file of one empty tile that has all the tags of the real one."""
    size = tile_format.size
    georeference = _georeference(image, elevation)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(**tile_format.profile, **georeference) as file:
            _describe(file, image)
            file.update_tags(**{name: str(value) for name, value in tags.items()})
            file.write_mask(np.zeros((size, size), np.uint8))
        return bytes(memory.read())


def _georeference(image: GeoImage, elevation: Elevation) -> dict[str, Any]:
    grid, rpcs = image.grid, image.pixels.attrs.get("rpcs")
    if isinstance(grid.model, AffineModel):
        return {"crs": grid.model.crs, "transform": grid.model.transform @ grid.to_model}
    if isinstance(rpcs, RPC):
        return {"rpcs": rpcs}
    if grid.model is not None:
        return {"crs": "EPSG:4326", "gcps": _sample_control_points(grid, elevation)}
    return {}


def _sample_control_points(grid: GeoGrid, elevation: Elevation) -> list[GroundControlPoint]:
    """The model at regular pixels; GDAL's control points count from the outer corner as we do."""
    rows, cols = (np.linspace(0, n, min(_GCPS_PER_SIDE, n + 1)) for n in grid.shape)
    x, y = (a.ravel() for a in np.meshgrid(cols, rows))
    lon, lat, h = localize_on_terrain(grid, x, y, elevation)
    lon = (lon - lon[0] + 180) % 360 - 180 + lon[0]  # no jump at the date line
    return [
        GroundControlPoint(row=row, col=col, x=x, y=y, z=z)
        for row, col, x, y, z in zip(y, x, lon, lat, h, strict=True)
    ]


def _describe(file: DatasetWriter, image: GeoImage) -> None:
    """Names, wavelengths, scale and offset of the bands."""
    attrs, bands = image.pixels.attrs, image.bands
    file.scales = _per_band(attrs.get("scale_factor", 1.0), bands, "scale_factor")
    file.offsets = _per_band(attrs.get("add_offset", 0.0), bands, "add_offset")
    if attrs.get("units"):
        file.units = [str(attrs["units"])] * len(bands)
    wavelengths = attrs.get("wavelengths") or {}
    for index, band in enumerate(bands, 1):
        file.set_band_description(index, band)
        if band in wavelengths:
            micrometres = f"{float(wavelengths[band]) / 1000:.6g}"
            file.update_tags(index, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=micrometres)
            file.update_tags(index, wavelength=f"{float(wavelengths[band]):.6g}")
            file.update_tags(index, wavelength_unit="nm")


def _per_band(value: Any, bands: Sequence[str], name: str) -> list[float]:
    if isinstance(value, Mapping):
        values = [value[band] for band in bands if band in value]
    else:
        values = [value] * len(bands) if np.ndim(value) == 0 else list(value)
    if len(values) != len(bands):
        raise BadInputError(
            f"{name} is {value}; expected one number, or one for each of {', '.join(bands)}"
        )
    return [float(v) for v in values]
