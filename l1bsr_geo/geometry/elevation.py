"""Height above the WGS84 ellipsoid at a place: constant, or a sampled DEM plus geoid."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from l1bsr_geo.geometry.model import FloatArray, GeometryModel


class Elevation(Protocol):
    """Heights on demand; arguments broadcast like numpy arrays."""

    def height(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> FloatArray:
        """Height [m above the ellipsoid] at ``lon, lat`` [degrees]."""
        ...


@dataclass(frozen=True)
class ConstantElevation:
    """The same height everywhere [m above the ellipsoid]."""

    h: float = 0.0

    def height(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> FloatArray:
        """The constant, in the shape of the arguments."""
        return np.full(np.broadcast(lon, lat).shape, self.h)


@dataclass(frozen=True)
class SampledElevation:
    """Heights on a regular lon/lat grid, interpolated bilinearly.

    Attributes:
        values: (rows, columns) heights [m above the ellipsoid], north row first; no NaN.
        west: longitude of the CENTRE of the first column [degrees].
        north: latitude of the CENTRE of the first row [degrees].
        step_lon: column spacing [degrees, positive].
        step_lat: row spacing [degrees, positive].
    """

    values: npt.NDArray[np.float32]
    west: float
    north: float
    step_lon: float
    step_lat: float

    def height(self, lon: npt.ArrayLike, lat: npt.ArrayLike) -> FloatArray:
        """Bilinear height; beyond the grid the nearest edge value."""
        rows, cols = self.values.shape
        x = np.clip((np.asarray(lon, np.float64) - self.west) / self.step_lon, 0, cols - 1)
        y = np.clip((self.north - np.asarray(lat, np.float64)) / self.step_lat, 0, rows - 1)
        x, y = np.broadcast_arrays(x, y)
        i, j = (
            np.minimum(y.astype(np.intp), max(rows - 2, 0)),
            np.minimum(x.astype(np.intp), max(cols - 2, 0)),
        )
        v, u = y - i, x - j
        i1, j1 = np.minimum(i + 1, rows - 1), np.minimum(j + 1, cols - 1)
        z = self.values
        return np.asarray(
            (1 - v) * ((1 - u) * z[i, j] + u * z[i, j1]) + v * ((1 - u) * z[i1, j] + u * z[i1, j1]),
            np.float64,
        )


AnyElevation: TypeAlias = ConstantElevation | SampledElevation


def localize_on_terrain(
    model: GeometryModel,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    elevation: Elevation,
    tolerance: float = 0.01,
    max_iterations: int = 20,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Direct location on terrain, by iterating ``h = elevation(localize(x, y, h))``.

    Args:
        model: any geometry model or grid.
        x: pixel columns.
        y: pixel rows.
        elevation: terrain heights.
        tolerance: stop when no height changes by more than this [m].
        max_iterations: bound on the iterations; view angles of these sensors converge in 4 to 6,
            steep slopes facing a slanted view take more.

    Returns:
        ``lon, lat`` [degrees] and ``h`` [m above the ellipsoid].
    """
    lon, lat = model.localize(x, y, 0.0)
    h = elevation.height(lon, lat)
    for _ in range(max_iterations):
        lon, lat = model.localize(x, y, h)
        before, h = h, elevation.height(lon, lat)
        if np.all(np.abs(h - before) <= tolerance):
            break
    return lon, lat, h
