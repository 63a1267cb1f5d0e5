"""A written result: its pixels by windows, where they are, and what its tags tell."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio.windows
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.readers.geotiff import geometry_of
from l1bsr_geo.readers.local_raster import cause_of, open_raster

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Result:
    """A raster on disk, unread.

    Attributes:
        path: the file.
        bands: descriptions of its bands, "1", "2" ... where it has none.
        grid: map or RPC geometry; model None in sensor geometry without one.
        points: (N, 5) control points: x, y [px], lon, lat [degrees], h [m]; None without any.
        tags: of the file.
        scales: physical value per DN, by band.
        offsets: physical value of DN 0, by band.
        facts: type, size and compression of the file, for people.
    """

    path: Path
    bands: tuple[str, ...]
    grid: GeoGrid
    points: FloatArray | None
    tags: Mapping[str, str]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Result":
        """Read everything but the pixels.

        Raises:
            MissingInputError: the file is not there.
            BadInputError: not a raster of numbers.
        """
        path = Path(path)
        try:
            with open_raster(path) as raster:
                if np.dtype(raster.dtypes[0]).kind not in "uif":
                    raise BadInputError(f"{path}: pixels of {raster.dtypes[0]}, numbers expected")
                names = tuple(d or str(i) for i, d in enumerate(raster.descriptions, 1))
                gcps, _ = raster.gcps
                points = np.array([[p.col, p.row, p.x, p.y, p.z or 0.0] for p in gcps])
                return cls(
                    path,
                    names,
                    GeoGrid(raster.shape, geometry_of(raster)),
                    points if len(points) > 3 else None,
                    dict(raster.tags()),
                    tuple(float(s) for s in raster.scales),
                    tuple(float(o) for o in raster.offsets),
                    {
                        "pixels": f"{raster.width} x {raster.height}, {raster.dtypes[0]}",
                        "nodata": f"nodata {raster.nodata}"
                        if raster.nodata is not None
                        else "a mask",
                        "file": f"{path.stat().st_size / 1e6:.1f} MB",
                    },
                )
        except RasterioError as error:
            raise BadInputError(
                f"{path} cannot be opened as a raster ({cause_of(error)})"
            ) from error

    @property
    def on_map(self) -> bool:
        """Whether it is in a CRS."""
        return isinstance(self.grid.model, AffineModel)

    def read(self, window: Window, step: int = 1) -> F32:
        """(C, height, width) of a window inside, NaN where there is no data; every ``step`` px.

        Raises:
            BadInputError: the file cannot be decoded.
        """
        shape = tuple(-(-n // step) for n in window.shape)
        try:
            with open_raster(self.path) as raster:
                there = rasterio.windows.Window(*window)
                out_shape = (len(self.bands), *shape)
                read = raster.read(window=there, out_shape=out_shape, masked=True)
        except RasterioError as error:
            raise BadInputError(f"{self.path} cannot be decoded ({cause_of(error)})") from error
        return np.asarray(read.astype(np.float32).filled(np.nan), np.float32)

    def tell(self, name: str) -> str | None:
        """A tag, or None."""
        return self.tags.get(name)

    def tell_numbers(self, name: str) -> tuple[float, ...] | None:
        """A tag that is a JSON list of numbers, or None where it is missing or something else."""
        try:
            numbers = json.loads(self.tags.get(name, "null"))
            return tuple(float(n) for n in numbers) if isinstance(numbers, list) else None
        except (ValueError, TypeError):
            return None
