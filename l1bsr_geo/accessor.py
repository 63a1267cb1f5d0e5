"""The accessor ``da.l1bsr``: what this package makes of an array, lazily.

It is there once one of the engines (`l1bsr_geo.backends`) has opened something, or after
``import l1bsr_geo.accessor``. Each method is a function of `pipelines.arrays`, which is loaded when
it is called.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from rasterio.rpc import RPC


@xr.register_dataarray_accessor("l1bsr")  # type: ignore[no-untyped-call]
class L1bsrAccessor:
    """Bands (band, y, x), frames (time, y, x) or one of them (y, x): sharper, aligned, on a map.

    Arrays of the engines, and rasters that rioxarray opened, may be cut before: ``x`` and ``y``
    say where the rest is. Values are taken for DN as the product has them. Results are
    dask-backed; the motion of bands and frames is found when a method is called, from a part of
    the pixels.
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def super_resolve(self, **options: Any) -> xr.DataArray:
        """The pixels that ``l1bsr-geo sr`` writes; on a map, or with ``ortho=False`` not.

        Args:
            **options: as of `pipelines.arrays.super_resolve_array`: model, scale, weights, device,
                precision, tile, bands, reference, aoi, crs, resolution, dem, geoid, height,
                refine, ortho, dtype.

        Raises:
            L1bsrGeoError: what a user can cause and mend.
        """
        from l1bsr_geo.pipelines.arrays import super_resolve_array

        return super_resolve_array(self._array, **options)

    def register_bands(self, **options: Any) -> xr.DataArray:
        """The pixels that ``l1bsr-geo register`` writes: bands aligned to the reference band.

        Args:
            **options: tile, bands, aoi, crs, resolution, dem, geoid, height, refine, ortho, dtype.

        Raises:
            L1bsrGeoError: what a user can cause and mend.
        """
        from l1bsr_geo.pipelines.arrays import register_array

        return register_array(self._array, **options)

    def orthorectify(self, **options: Any) -> xr.DataArray:
        """The pixels that ``l1bsr-geo ortho`` writes: every band on a map by its own geometry.

        Args:
            **options: bands, aoi, crs, resolution, dem, geoid, height, refine, dtype.

        Raises:
            L1bsrGeoError: what a user can cause and mend.
        """
        from l1bsr_geo.pipelines.arrays import orthorectify_array

        return orthorectify_array(self._array, **options)

    def denoise(self, **options: Any) -> xr.DataArray:
        """The pixels that ``l1bsr-geo denoise`` writes, of frames (time, [band,] y, x).

        Args:
            **options: of `pipelines.denoise_job.DenoiseJob`: method, mode, teacher, noise, frames,
                pattern, weights, iterations, crop, device, precision, tile, seed.

        Raises:
            L1bsrGeoError: what a user can cause and mend.
        """
        from l1bsr_geo.pipelines.arrays import denoise_array

        return denoise_array(self._array, **options)

    def to_cog(self, path: str | Path, *, overwrite: bool = False, **options: Any) -> Path:
        """Compute the array, block by block, into a cloud-optimized GeoTIFF, whole or not at all.

        Args:
            path: the file.
            overwrite: replace it.
            **options: dem, geoid, height for the control points of sensor geometry; progress.

        Returns:
            ``path``.

        Raises:
            L1bsrGeoError: what a user can cause and mend; nothing is left under ``path``.
        """
        from l1bsr_geo.pipelines.arrays import write_array

        return write_array(self._array, path, overwrite=overwrite, **options)

    @property
    def rpcs(self) -> "RPC | None":
        """The RPC of exactly these pixels; None where the geometry is no RPC.

        For ``rio.reproject`` and ``rio.to_raster`` of rioxarray before 0.21, which do not know
        the one in ``spatial_ref``: ``da.rio.to_raster(path, rpcs=da.l1bsr.rpcs)``.
        """
        from l1bsr_geo.pipelines.arrays import find_rpcs

        return find_rpcs(self._array)

    def reframe(self) -> xr.DataArray:
        """A part of an array in sensor geometry with a frame of its own, for other software.

        rioxarray writes the RPC that ``spatial_ref`` holds, which is of the whole array:
        ``da.isel(...).l1bsr.reframe().rio.to_raster(path)``. The methods here need no such thing.

        Returns:
            The same pixels; ``x`` and ``y`` begin at 0.5, the RPC is of exactly them.

        Raises:
            L1bsrGeoError: the product is not where it was.
        """
        from l1bsr_geo.pipelines.arrays import reframe_array

        return reframe_array(self._array)
