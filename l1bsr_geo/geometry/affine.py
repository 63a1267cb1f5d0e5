"""The map model: an affine transform in a coordinate reference system."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine

from l1bsr_geo.geometry.model import FloatArray


@dataclass(frozen=True)
class AffineModel:
    """A map-projected image; height has no effect.

    Attributes:
        transform: pixel ``(x, y)``, outer corner first, to map coordinates.
        crs: anything pyproj understands, usually WKT or ``"EPSG:32633"``.
    """

    transform: Affine
    crs: str

    def localize(
        self, x: npt.ArrayLike, y: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Pixel to ``lon, lat`` [degrees, WGS84]."""
        x, y, _ = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (x, y, h)))
        t = self.transform
        lon, lat = lonlat_to_map(self.crs).transform(
            t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f, direction="INVERSE"
        )
        return np.asarray(lon), np.asarray(lat)

    def project(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """``lon, lat`` [degrees, WGS84] to a pixel."""
        lon, lat, _ = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (lon, lat, h)))
        e, n = lonlat_to_map(self.crs).transform(lon, lat)
        t = ~self.transform
        return t.a * e + t.b * n + t.c, t.d * e + t.e * n + t.f


@lru_cache(maxsize=32)
def lonlat_to_map(crs: str) -> pyproj.Transformer:
    """The transformer from WGS84 ``lon, lat`` to ``crs``, always in x, y order."""
    return pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
