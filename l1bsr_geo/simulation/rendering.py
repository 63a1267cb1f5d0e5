"""Render map scenes through geometry models, and what ground models see."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from l1bsr_geo.geometry.affine import lonlat_to_map
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation, localize_on_terrain
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.geometry.location_grid import LocationGrid
from l1bsr_geo.geometry.model import FloatArray, GeometryModel
from l1bsr_geo.simulation.scenes import Bounds

FLAT = ConstantElevation(0.0)
_NODE_STEP = (
    4  # [px] between places on the terrain; bilinear between: 0.001 px on average, 0.012 at most
)


class Samples(Protocol):
    """What is rendered: DN (zero is no light) at map positions, NaN where there is nothing."""

    @property
    def crs(self) -> str:
        """Map projection of the positions."""
        ...

    def sample(self, band: str, e: npt.ArrayLike, n: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """DN of a band at map positions [m]."""
        ...


def render(
    scene: Samples,
    model: GeometryModel,
    band: str,
    window: Window,
    elevation: Elevation = FLAT,
) -> npt.NDArray[np.float32]:
    """The scene in a window of a sensor's pixels, (height, width) DN; NaN beyond the scene."""
    e, n = _places(scene.crs, model, window, elevation)
    return scene.sample(band, e, n)


def lonlat_bounds(
    models: Iterable[GeometryModel], window: Window, heights: tuple[float, ...] = (0.0,)
) -> Bounds:
    """West, south, east, north [degrees] of what models see in a window of their pixels."""
    lon, lat = _outline(models, window, heights)
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def map_bounds(
    models: Iterable[GeometryModel],
    window: Window,
    crs: str,
    heights: tuple[float, ...] = (0.0,),
    margin: float = 60.0,
) -> Bounds:
    """The same in a map projection, with a margin [m], whole tens of metres."""
    e, n = lonlat_to_map(crs).transform(*_outline(models, window, heights))
    west, south = (10 * np.floor((v.min() - margin) / 10) for v in (e, n))
    east, north = (10 * np.ceil((v.max() + margin) / 10) for v in (e, n))
    return float(west), float(south), float(east), float(north)


def _outline(
    models: Iterable[GeometryModel], window: Window, heights: tuple[float, ...]
) -> np.ndarray:
    """Lon, lat (2, N) of nodes over the window, at each height, of each model."""
    x = window.col_off + np.linspace(0, window.width, 9)
    y = window.row_off + np.linspace(0, window.height, 9)
    places = [
        np.stack(model.localize(x[None, :], y[:, None], h)).reshape(2, -1)
        for model in models
        for h in heights
    ]
    return np.concatenate(places, 1)


def _places(
    crs: str, model: GeometryModel, window: Window, elevation: Elevation
) -> tuple[FloatArray, FloatArray]:
    """Map coordinates of the pixel centres of a window, (height, width) each [m]."""
    step = _NODE_STEP
    rows, columns = (-(-n // step) + 1 for n in window.shape)
    corner = (float(window.col_off), float(window.row_off))
    grid = LocationGrid.sample(
        model, ((rows - 1) * step, (columns - 1) * step), max_error=0.02, origin=corner
    )
    x = corner[0] + np.arange(columns) * float(step)
    y = corner[1] + np.arange(rows) * float(step)
    lon, lat, _ = localize_on_terrain(grid, x[None, :], y[:, None], elevation)
    nodes = np.stack(lonlat_to_map(crs).transform(lon, lat))
    places = _enlarge(_enlarge(nodes, window.height, 1), window.width, 2)
    return places[0], places[1]


def _enlarge(nodes: FloatArray, count: int, axis: int) -> FloatArray:
    """Linear interpolation of nodes along an axis at ``count`` pixel centres."""
    at = (np.arange(count) + 0.5) / _NODE_STEP
    k = at.astype(np.intp)
    weight = (at - k).reshape([-1 if a == axis else 1 for a in range(nodes.ndim)])
    first = np.take(nodes, k, axis)
    return np.asarray(first + weight * (np.take(nodes, k + 1, axis) - first))
