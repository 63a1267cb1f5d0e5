"""Which place of a source image each pixel of a map shows."""

from dataclasses import dataclass

import numpy as np

from l1bsr_geo.geometry.elevation import Elevation
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.model import FloatArray

LARGEST_STEP = 16
TOLERANCE = 0.02  # [source px] error of interpolating between nodes
_LEVEL = 1e-6  # [m] terrain flatter than this is flat


@dataclass(frozen=True)
class Lookup:
    """From the pixels of a map to pixel coordinates of a source image.

    The source's model is asked at nodes and interpolated bilinearly between them; the terrain is
    asked at every pixel. Lines of sight bend in pixel coordinates, so nodes are projected at three
    heights (the block's lowest, middle and highest) and interpolated with the square of the height.

    Attributes:
        target: the map's grid.
        source: the image's grid.
        elevation: terrain.
    """

    target: GeoGrid
    source: GeoGrid
    elevation: Elevation

    def locate(self, window: Window) -> tuple[FloatArray, FloatArray]:
        """Source ``x, y`` of the pixel centres of a window of the target, each of its shape.

        Not finite where the source's model has no answer.
        """
        step = LARGEST_STEP
        lon, lat = self._ground(window, step)
        h = self.elevation.height(*(_interpolate(a, step, window.shape) for a in (lon, lat)))
        low, high = float(np.min(h)), float(np.max(h))
        middle, half = (low + high) / 2, (high - low) / 2
        heights = (low, middle, high) if half > _LEVEL else (middle,)
        while True:
            nodes = [np.stack(self.source.project(lon, lat, at)) for at in heights]
            if step == 1 or all(_is_smooth(n) for n in nodes):
                break
            step //= 2
            lon, lat = self._ground(window, step)
        if len(heights) == 1:
            x, y = _interpolate(nodes[0], step, window.shape)
            return x, y
        t = (h - middle) / half
        below, at_middle, above = nodes
        terms = at_middle, (above - below) / 2, (above + below) / 2 - at_middle
        constant, slope, bend = (_interpolate(term, step, window.shape) for term in terms)
        x, y = constant + t * (slope + t * bend)
        return x, y

    def reach(self, window: Window) -> tuple[float, float, float, float]:
        """Bounds ``left, top, right, bottom`` of what ``locate`` will give, from few points.

        Terrain is sampled every 4 px and the range of its heights widened by a tenth. Everywhere
        (infinite) where the source's model has no answer at a node.
        """
        lon, lat = self._ground(window, LARGEST_STEP)
        sparse = tuple(-(-n // 4) for n in window.shape)
        h = self.elevation.height(*(_interpolate(a, LARGEST_STEP // 4, sparse) for a in (lon, lat)))
        low, high = float(np.min(h)), float(np.max(h))
        spare = (high - low) / 10
        heights = {low - spare, high + spare}
        at = np.stack([self.source.project(lon, lat, z) for z in heights])
        if not np.isfinite(at).all():
            return -np.inf, -np.inf, np.inf, np.inf
        (left, top), (right, bottom) = at.min((0, 2, 3)) - 1, at.max((0, 2, 3)) + 1
        return float(left), float(top), float(right), float(bottom)

    def _ground(self, window: Window, step: int) -> tuple[FloatArray, FloatArray]:
        """``lon, lat`` of nodes from the centre of a window's first pixel on, every ``step`` px.

        At least three nodes each way. Longitudes do not jump at the date line.
        """
        rows, cols = (np.arange(max((n - 1) // step + 2, 3)) * step + 0.5 for n in window.shape)
        x, y = np.meshgrid(cols + window.col_off, rows + window.row_off)
        lon, lat = self.target.localize(x, y)
        first = lon.flat[0]
        return (lon - first + 180) % 360 - 180 + first, lat


def _is_smooth(nodes: FloatArray) -> bool:
    """Whether bilinear interpolation of nodes (2, rows, columns) is good enough.

    Its error is at most an eighth of the second differences of both axes.
    """
    finite = np.isfinite(nodes)
    if not finite.all():
        return not finite.any()
    bend = sum(float(np.abs(np.diff(nodes, 2, axis)).max()) for axis in (1, 2))
    return bend / 8 <= TOLERANCE


def _interpolate(nodes: FloatArray, step: int, shape: tuple[int, ...]) -> FloatArray:
    """Nodes (..., rows, columns), one every ``step`` values, to (..., *shape), bilinearly."""
    rows, cols = shape
    if step == 1:
        return nodes[..., :rows, :cols]
    i, v = np.divmod(np.arange(rows), step)
    j, u = np.divmod(np.arange(cols), step)
    v, u = v[:, None] / step, u / step
    lines = nodes[..., i, :] * (1 - v) + nodes[..., i + 1, :] * v
    return np.asarray(lines[..., j] * (1 - u) + lines[..., j + 1] * u)
