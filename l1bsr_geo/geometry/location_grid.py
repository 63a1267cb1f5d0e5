"""A sampled geometry: ground positions at regular nodes, bilinear between them.

Fast (millions of pixels a second), picklable and storable; also how Sen2VM's GEO_DATA grids and, as
a last resort, footprint corners become a model.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from l1bsr_geo.geometry.model import FloatArray, GeometryModel

METRES_PER_DEGREE = 111_320.0
_CHUNK = 1 << 15  # points at a time: temporaries stay in cache


@dataclass(frozen=True, eq=False)
class LocationGrid:
    """Direct location grid.

    Attributes:
        lon: (L, rows, columns) degrees; continuous, also across the date line.
        lat: (L, rows, columns) degrees.
        step: ``(x, y)`` node spacing [px].
        origin: ``(x, y)`` pixel coordinates of the first node, outer-corner convention.
        heights: L heights of the layers [m]; positions are the polynomial of degree L - 1 through
            them. One layer: the grid holds the terrain already, and ``h`` is ignored.
    """

    lon: FloatArray
    lat: FloatArray
    step: tuple[float, float]
    origin: tuple[float, float] = (0.0, 0.0)
    heights: tuple[float, ...] = (0.0,)

    @classmethod
    def sample(
        cls,
        model: GeometryModel,
        shape: tuple[int, int],
        *,
        step: int = 16,
        max_error: float = 0.15,
        heights: tuple[float, ...] = (0.0, 4000.0, 8000.0),
        origin: tuple[float, float] = (0.0, 0.0),
    ) -> "LocationGrid":
        """Sample a model over ``shape`` (height, width) pixels from ``origin``.

        Each axis takes the largest step, halving from ``step``, whose linear interpolation keeps
        its share of ``max_error``; attitude wobble makes y the demanding one.

        Args:
            model: what to sample.
            shape: extent (height, width) [px].
            step: largest node spacing [px].
            max_error: bound on the sampling error on the ground [m].
            heights: where to sample [m]; lines of sight bend in lon/lat with the square of the
                height (0.05 m at 500 m), so three.
            origin: first pixel corner (x, y) of the extent.
        """
        steps, nodes = [], []
        for axis, share in enumerate((0.25, 0.75)):
            step_axis = step
            while (
                step_axis > 1 and _bend(model, shape, origin, axis, step_axis) > share * max_error
            ):
                step_axis //= 2
            count = -(-shape[1 - axis] // step_axis) + 1
            steps.append(float(step_axis))
            nodes.append(origin[axis] + np.arange(count) * steps[axis])
        layers = [model.localize(nodes[0], nodes[1][:, None], h) for h in heights]
        lon = _continuous(np.stack([lon for lon, _ in layers]))
        lat = np.stack([lat for _, lat in layers])
        return cls(lon, lat, (steps[0], steps[1]), origin, heights)

    def localize(
        self, x: npt.ArrayLike, y: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Pixel to ``lon, lat`` [degrees], bilinear; beyond the grid its edge cells continue."""
        x, y, h = (np.asarray(v, np.float64) for v in (x, y, h))
        shape = np.broadcast_shapes(x.shape, y.shape, h.shape)
        nodes = self._layer(h) if h.ndim == 0 else None
        if nodes is None:
            x, y, h = np.broadcast_arrays(x, y, h)
        else:
            x, y = np.broadcast_arrays(x, y)
        x, y, h_flat = x.ravel(), y.ravel(), h.ravel()
        out = np.empty(x.size, np.complex128)
        for start in range(0, x.size, _CHUNK):
            piece = slice(start, start + _CHUNK)
            if nodes is not None:
                out[piece] = self._bilinear(nodes, x[piece], y[piece])
            else:
                place, *powers = (self._bilinear(c, x[piece], y[piece]) for c in self._by_height)
                for coefficient, factor in zip(powers, self._rises(h_flat[piece]), strict=True):
                    place += factor * coefficient
                out[piece] = place
        return _wrap(out.real).reshape(shape), out.imag.reshape(shape).copy()

    def project(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """``lon, lat`` [degrees] at height ``h`` [m] to a pixel, by Newton steps on the cells."""
        lon, lat, h = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (lon, lat, h)))
        shape = lon.shape
        lon, lat, h = lon.ravel(), lat.ravel(), h.ravel()
        middle = float(self.lon.mean())
        wanted = (lon - middle + 180.0) % 360.0 - 180.0 + middle + 1j * lat
        out = np.empty((2, wanted.size))
        for start in range(0, wanted.size, _CHUNK):
            piece = slice(start, start + _CHUNK)
            out[:, piece] = self._invert(wanted[piece], h[piece])
        return out[0].reshape(shape), out[1].reshape(shape)

    def _invert(self, wanted: npt.NDArray[np.complex128], h: FloatArray) -> FloatArray:
        """Pixel coordinates (2, n) of complex lon + 1j lat."""
        rises = self._rises(h)
        tree, starts, stretch = self._guesses
        _, nearest = tree.query(np.column_stack([wanted.real * stretch, wanted.imag]))
        fx, fy = starts[:, nearest]  # in nodes
        rows, cols = self.lon.shape[1:]
        for _ in range(20):
            place, dx, dy = _cell(self._by_height[0], cols, fx, fy, rows)
            for coefficient, factor in zip(self._by_height[1:], rises, strict=True):
                more, more_dx, more_dy = _cell(coefficient, cols, fx, fy, rows)
                place, dx, dy = place + factor * more, dx + factor * more_dx, dy + factor * more_dy
            miss = wanted - place
            det = dx.real * dy.imag - dx.imag * dy.real
            step_x = (miss.real * dy.imag - miss.imag * dy.real) / det
            step_y = (dx.real * miss.imag - dx.imag * miss.real) / det
            fx, fy = fx + step_x, fy + step_y
            if max(np.abs(step_x).max(initial=0), np.abs(step_y).max(initial=0)) < 1e-7:
                break
        return np.stack([self.origin[0] + fx * self.step[0], self.origin[1] + fy * self.step[1]])

    @cached_property
    def _by_height(self) -> list[npt.NDArray[np.complex128]]:
        """Flat lon + 1j lat of the first layer, then the divided differences over height."""
        column = list((self.lon + 1j * self.lat).reshape(len(self.heights), -1))
        coefficients = [column[0]]
        for order in range(1, len(self.heights)):
            column = [
                (b - a) / (self.heights[k + order] - self.heights[k])
                for k, (a, b) in enumerate(pairwise(column))
            ]
            coefficients.append(column[0])
        return coefficients

    def _rises(self, h: FloatArray) -> list[FloatArray]:
        """Newton's factors (h - h0), (h - h0)(h - h1) ... of the divided differences."""
        factors: list[FloatArray] = []
        for below in self.heights[:-1]:
            factors.append((h - below) * factors[-1] if factors else h - below)
        return factors

    @cached_property
    def _guesses(self) -> tuple[cKDTree, FloatArray, float]:
        """A search tree of some nodes (lon scaled to equal distances), and their node indices."""
        rows, cols = self.lon.shape[1:]
        every = max(1, int(np.sqrt(rows * cols / 2e4)))
        j, i = np.meshgrid(np.arange(0, cols, every), np.arange(0, rows, every))
        stretch = float(np.cos(np.radians(self.lat.mean())))
        points = np.column_stack([self.lon[0, i, j].ravel() * stretch, self.lat[0, i, j].ravel()])
        return cKDTree(points), np.stack([j.ravel(), i.ravel()]).astype(np.float64), stretch

    def _layer(self, h: FloatArray) -> npt.NDArray[np.complex128]:
        layer = self._by_height[0]
        for coefficient, factor in zip(self._by_height[1:], self._rises(h), strict=True):
            layer = layer + factor * coefficient
        return layer

    def _bilinear(
        self, nodes: npt.NDArray[np.complex128], x: FloatArray, y: FloatArray
    ) -> npt.NDArray[np.complex128]:
        rows, cols = self.lon.shape[1:]
        fx = (x - self.origin[0]) / self.step[0]
        fy = (y - self.origin[1]) / self.step[1]
        j = np.clip(fx.astype(np.intp), 0, max(cols - 2, 0))
        i = np.clip(fy.astype(np.intp), 0, max(rows - 2, 0))
        fx -= j
        fy -= i
        k = i * cols + j
        right, down = int(cols > 1), cols * int(rows > 1)
        top = nodes[k]
        top += fx * (nodes[k + right] - top)
        k += down
        bottom = nodes[k]
        bottom += fx * (nodes[k + right] - bottom)
        bottom -= top
        bottom *= fy
        bottom += top
        return np.asarray(bottom)


def _bend(
    model: GeometryModel,
    shape: tuple[int, int],
    origin: tuple[float, float],
    axis: int,
    step: float,
) -> float:
    """Largest error [m] of linear interpolation along an axis, at three depths inside cells."""
    cells = np.arange(-(-shape[1 - axis] // step))[:, None]
    along = origin[axis] + (cells + np.linspace(0.0, 1.0, 5)) * step
    across = origin[1 - axis] + np.linspace(0, shape[axis], 5)[:, None, None]
    lon, lat = model.localize(*((along, across) if axis == 0 else (across, along)))
    east = (lon - lon[..., :1] + 180.0) % 360.0 - 180.0
    place = east * np.cos(np.radians(lat)) + 1j * lat
    straight = np.linspace(place[..., 0], place[..., -1], 5, axis=-1)
    return float(np.abs(place - straight).max() * METRES_PER_DEGREE)


def _cell(
    nodes: npt.NDArray[np.complex128], cols: int, fx: FloatArray, fy: FloatArray, rows: int
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
    """Bilinear value and its derivatives along x and y (per node) at fractional node indices."""
    j = np.clip(np.floor(fx), 0, cols - 2).astype(np.intp)
    i = np.clip(np.floor(fy), 0, rows - 2).astype(np.intp)
    u, v, k = fx - j, fy - i, i * cols + j
    a, b, c, d = nodes[k], nodes[k + 1], nodes[k + cols], nodes[k + cols + 1]
    along_top, along_bottom = b - a, d - c
    dx = along_top + v * (along_bottom - along_top)
    dy = c - a + u * (along_bottom - along_top)
    return a + u * along_top + v * dy, dx, dy


def _continuous(lon: FloatArray) -> FloatArray:
    """Longitudes without jumps, relative to the first node."""
    first = lon.flat[0]
    return np.asarray((lon - first + 180.0) % 360.0 - 180.0 + first)


def _wrap(lon: FloatArray) -> FloatArray:
    """Longitudes into [-180, 180), leaving those that are there bit for bit."""
    if lon.size and (lon.min() < -180.0 or lon.max() >= 180.0):
        return np.asarray((lon + 180.0) % 360.0 - 180.0)
    return lon.copy()
