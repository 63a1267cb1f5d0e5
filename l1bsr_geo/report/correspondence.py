"""Where the pixels of an input are in its result, and the result read there.

A pixel q of band b of the input shows what the reference band shows at p with p + flow_b(p) = q.
p goes to the ground by the input's geometry and terrain, and from there to a pixel of the map; in
sensor geometry it goes there by an affine. The input is never resampled, only the result is.
"""

import json
import re
import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from affine import Affine
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, L1bsrGeoWarning
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import Elevation, localize_on_terrain
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.model import Aligned, FloatArray
from l1bsr_geo.georef.comparison import shift_grid
from l1bsr_geo.images.bands import BandScene, BandStack
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.registration.bands import geometric_flow, register_bands
from l1bsr_geo.report.result import Result

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_STEP = 4  # [px] between nodes that are sent over the ground
_ORDER = 5  # of the spline that reads the result
_MARGIN = 48  # [px] of context when bands are matched
_REACH = 8  # [result px] that the spline looks at, about
_WORST = 0.05  # [result px] misfit of control points to an affine


@dataclass(frozen=True, eq=False)
class Correspondence:
    """An input and its result.

    Attributes:
        stack: the bands that were read; of a burst its reference frame.
        result: what was made of them.
        elevation: the ground, as the result was drawn on it.
        to_result: reference pixels of the input to pixels of the result where it is in sensor
            geometry; None where it is on another map or went over the ground.
    """

    stack: BandStack
    result: Result
    elevation: Elevation
    to_result: Affine | None

    @classmethod
    def find(cls, stack: BandStack, result: Result, elevation: Elevation) -> "Correspondence":
        """From what the result's georeferencing and tags tell.

        Raises:
            BadInputError: the two have no geometry in common, or no band.
        """
        if not set(stack.bands) & set(result.bands):
            raise BadInputError(
                f"{result.path} has bands {', '.join(result.bands)} and its source "
                f"{', '.join(stack.bands)}; give the source that it was made of"
            )
        moved = result.tell_numbers("refine_shift_px")
        if moved is not None:
            stack = replace(stack, grids=_shift_all(stack, moved))
        grid = stack.grids[stack.reference]
        return cls(stack, result, elevation, _find_affine(grid, result, elevation))

    @property
    def bands(self) -> tuple[str, ...]:
        """Those that both have, in the result's order."""
        return tuple(b for b in self.result.bands if b in self.stack.bands)

    @property
    def grid(self) -> GeoGrid:
        """The input's, of the reference band."""
        return self.stack.grids[self.stack.reference]

    @cached_property
    def scale(self) -> float:
        """Pixels of the result to a pixel of the input, along an axis, about."""
        height, width = self.grid.shape
        x, y = self.locate(width / 2 + np.array([0.0, 1, 0]), height / 2 + np.array([0.0, 0, 1]))
        area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
        return float(np.sqrt(abs(area)))

    def locate(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Pixels of the reference band to pixels of the result."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if self.to_result is not None:
            a = self.to_result
            return a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f
        lon, lat, h = localize_on_terrain(self.grid, x, y, self.elevation)
        return self.result.grid.project(lon, lat, h)

    def trace(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Pixels of the result to pixels of the reference band."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if self.to_result is not None:
            a = ~self.to_result
            return a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f
        lon, lat, h = localize_on_terrain(self.result.grid, x, y, self.elevation)
        return self.grid.project(lon, lat, h)

    def seen(self) -> Window:
        """The pixels of the input that the result may show."""
        height, width = self.result.grid.shape
        x, y = np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33))
        x, y = self.trace(x, y)
        fine = np.isfinite(x) & np.isfinite(y)
        if not fine.any():
            return Window(0, 0, 0, 0)
        x, y = x[fine], y[fine]
        left, top = int(np.floor(x.min())), int(np.floor(y.min()))
        size = int(np.ceil(x.max())) - left, int(np.ceil(y.max())) - top
        return Window(left, top, *size).intersect(self.grid.window)

    def motion(self, window: Window) -> FlowField:
        """The flow of every band to the reference about a window, as the result has it."""
        crop = window.grow(_MARGIN).intersect(self.grid.window)
        nodes = np.zeros((len(self.stack.bands), 2, 1, 1), np.float32)
        told = self.result.tell("band_registration") or ""
        if len(self.stack.bands) == 1 or told == "none":
            return FlowField(nodes, 1.0)
        if match := re.match(r"whole pixels .*?(\{.*\})", told):
            for band, shift in json.loads(match[1]).items():
                if band in self.stack.bands:
                    nodes[self.stack.bands.index(band), :, 0, 0] = shift
            return FlowField(nodes, 1.0)
        part = self.stack.crop(crop)
        located = all(g.model is not None for g in part.grids.values())
        on_map = all(isinstance(g.model, AffineModel) for g in part.grids.values())
        prior = geometric_flow(part, elevation=self.elevation) if located and not on_map else None
        flow = prior
        if told:  # matched; else every band stands where its own geometry says
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", L1bsrGeoWarning)  # what shows nothing moves nothing
                flow = register_bands(part, prior=prior, search=2 if on_map else None)
        if flow is None:
            return FlowField(nodes, 1.0)
        return replace(flow, origin=(flow.origin[0] + crop.col_off, flow.origin[1] + crop.row_off))

    def look(self, window: Window) -> "Look":
        """The result about a window of the input."""
        reach = 2 + max(4, _MARGIN // 4)
        origin = window.col_off - reach, window.row_off - reach
        rows, cols = (int(np.ceil((n + 2 * reach) / _STEP)) + 1 for n in window.shape)
        x, y = np.meshgrid(origin[0] + _STEP * np.arange(cols), origin[1] + _STEP * np.arange(rows))
        at = np.stack(self.locate(x, y))
        if not np.isfinite(at).all():
            return Look(window, Window(0, 0, 0, 0), at, origin, np.empty((0, 0, 0)))
        low, high = at.min((1, 2)), at.max((1, 2))
        left, top = (int(np.floor(v)) - _REACH for v in low)
        right, bottom = (int(np.ceil(v)) + _REACH for v in high)
        block = Window(left, top, right - left, bottom - top).intersect(self.result.grid.window)
        pixels = self.read_result(block) if min(block.shape) else np.empty((0, 0, 0))
        return Look(window, block, at, origin, pixels)

    def read_source(self, window: Window) -> tuple[F64, Mask]:
        """Bands of a window of the input, zero-based DN, and validity, (C, height, width)."""
        views = BandScene(self.stack).read(window)
        at = [self.stack.bands.index(b) for b in self.bands]
        return views.pixels[0, at].astype(np.float64), views.valid[0, at]

    def read_result(self, window: Window) -> F64:
        """Bands of a window of the result as zero-based DN of the input, NaN where unknown."""
        chosen = [self.result.bands.index(b) for b in self.bands]
        return self._as_source(self.result.read(window)[chosen].astype(np.float64))

    def _as_source(self, pixels: F64) -> F64:
        """DN of the result as zero-based DN of the input."""
        scales, offsets = (self.stack.attrs.get(k) for k in ("scale_factor", "add_offset"))
        for plane, band in zip(pixels, self.bands, strict=True):
            at = self.result.bands.index(band)
            if isinstance(scales, dict) and isinstance(offsets, dict) and band in scales:
                plane *= self.result.scales[at] / scales[band]
                plane += (self.result.offsets[at] - offsets[band]) / scales[band]
            plane += self.stack.add_offset.get(band, 0.0)
        return pixels


@dataclass(frozen=True, eq=False)
class Look:
    """The result about a window of the input.

    Attributes:
        window: of the input's reference band.
        block: of the result, that was read.
        nodes: (2, rows, columns) x, y of the result at every fourth pixel of the input.
        origin: ``x, y`` of the first node.
        pixels: (C, H, W) of the block, zero-based DN, NaN where unknown.
    """

    window: Window
    block: Window
    nodes: F64
    origin: tuple[int, int]
    pixels: F64

    @cached_property
    def scale(self) -> float:
        """Pixels of the result to a pixel of the input here."""
        across = (self.nodes[:, :, 1:] - self.nodes[:, :, :-1]).mean((1, 2)) / _STEP
        along = (self.nodes[:, 1:] - self.nodes[:, :-1]).mean((1, 2)) / _STEP
        return float(np.sqrt(abs(across[0] * along[1] - across[1] * along[0])))

    @cached_property
    def known(self) -> Mask:
        """(H, W): pixels of the block that all bands have."""
        return np.asarray(np.isfinite(self.pixels).all(0))

    @cached_property
    def _far(self) -> F64:
        """(H, W) distance to what is not known, the block's border included [result px]."""
        return np.asarray(ndimage.distance_transform_edt(np.pad(self.known, 1)))[1:-1, 1:-1]

    @cached_property
    def _filled(self) -> F64:
        if self.known.all():
            return self.pixels
        nearest = ndimage.distance_transform_edt(
            ~self.known, return_distances=False, return_indices=True
        )
        return np.asarray(self.pixels[:, nearest[0], nearest[1]])

    def smooth(self, mtf: float, band: int) -> F64:
        """Spline coefficients of a band of the block behind a Gaussian, for `sample`.

        Args:
            mtf: what the Gaussian leaves of the input's Nyquist frequency, up to 1.
            band: which, by place.
        """
        if mtf == 1:
            return np.asarray(self._sharp[band])
        soft = ndimage.gaussian_filter(self._filled[band], spread(mtf) * self.scale)
        return np.asarray(ndimage.spline_filter(soft, _ORDER, mode="mirror"))

    @cached_property
    def _sharp(self) -> F64:
        return np.stack([ndimage.spline_filter(b, _ORDER, mode="mirror") for b in self._filled])

    def covers(self, share: float = 0.98) -> bool:
        """Whether the result has data all over the window."""
        if not self.known.any():
            return False
        x, y = pixel_centres(self.window)
        return bool(self.has_data(x, y).mean() >= share)

    def has_data(self, x: F64, y: F64, reach: float = 3.0) -> Mask:
        """Where everything within ``reach`` result px of places of the input is known."""
        u, v = self._within(x, y)
        near = ndimage.map_coordinates(self._far, [v - 0.5, u - 0.5], order=1, cval=0)
        return np.asarray(near > reach)

    def sample(self, coefficients: F64, x: F64, y: F64) -> F64:
        """One band at places of the input.

        Args:
            coefficients: of the band, as `smooth` gives them.
            x: columns of the input's reference band, any shape.
            y: rows.
        """
        u, v = self._within(x, y)
        at = [v - 0.5, u - 0.5]
        return np.asarray(
            ndimage.map_coordinates(coefficients, at, order=_ORDER, prefilter=False, mode="mirror")
        )

    def _within(self, x: F64, y: F64) -> tuple[F64, F64]:
        """Places of the input in the block."""
        at = [(y - self.origin[1]) / _STEP, (x - self.origin[0]) / _STEP]
        u, v = (ndimage.map_coordinates(n, at, order=1, mode="nearest") for n in self.nodes)
        return u - self.block.col_off, v - self.block.row_off


def spread(mtf: float) -> float:
    """Standard deviation [px] of the Gaussian that leaves ``mtf`` of the Nyquist frequency."""
    return float(np.sqrt(max(0.0, -2 * np.log(mtf))) / np.pi)


def pixel_centres(window: Window, per: int = 1) -> tuple[F64, F64]:
    """``x, y`` of the centres of a window's pixels, ``per`` fine ones to a pixel and axis."""
    cols, rows = ((np.arange(n * per) + 0.5) / per for n in (window.width, window.height))
    x, y = np.meshgrid(window.col_off + cols, window.row_off + rows)
    return x, y


def undo(flow: FlowField, band: int, x: F64, y: F64) -> tuple[F64, F64]:
    """The reference's places p that band ``band`` shows at q = (x, y): p + flow(p) = q."""
    dx, dy = flow.nodes[band]
    px, py = x, y
    for _ in range(3):
        at = [(py - flow.origin[1]) / flow.step, (px - flow.origin[0]) / flow.step]
        px, py = (
            q - ndimage.map_coordinates(d, at, np.float64, order=1, mode="nearest")
            for q, d in ((x, dx), (y, dy))
        )
    return px, py


def _shift_all(stack: BandStack, moved: tuple[float, ...]) -> dict[str, GeoGrid]:
    """Grids refined as the result's were; the shift is in pixels of the reference band."""
    (dx, dy), (height, width) = moved, stack.shape
    return {
        band: shift_grid(grid, dx * grid.shape[1] / width, dy * grid.shape[0] / height)
        for band, grid in stack.grids.items()
    }


def _find_affine(grid: GeoGrid, result: Result, elevation: Elevation) -> Affine | None:
    """Pixels of the input to pixels of a result in sensor geometry; None on a map of its own."""
    told: Aligned = "centre" if result.tell("aligned") == "centre" else "corner"
    if result.on_map:
        if isinstance(grid.model, AffineModel):  # a map's height has no effect
            return _fit(*_pairs_over_ground(grid, result, elevation), result)
        _check_located(grid, result)
        return None
    if result.grid.model is not None and grid.model is not None:
        return _fit(*_pairs_over_ground(grid, result, elevation), result)
    if result.points is not None and grid.model is not None:
        x, y, lon, lat, h = result.points.T
        return _fit(np.stack(grid.project(lon, lat, h)), np.stack([x, y]), result)
    ratio = [r / s for r, s in zip(result.grid.shape, grid.shape, strict=True)]
    if ratio[0] != ratio[1] or ratio[0] != round(ratio[0]):
        raise BadInputError(
            f"{result.path} has no geometry, and {result.grid.shape} pixels are no multiple of its "
            f"source's {grid.shape}; give the source that it was made of"
        )
    to_result: Affine = ~grid.zoom(ratio[0], told).to_model @ grid.to_model
    return to_result


def _check_located(grid: GeoGrid, result: Result) -> None:
    if grid.model is None:
        raise BadInputError(
            f"{result.path} is on a map and its source has no geometry; give the source that "
            "it was made of"
        )


def _pairs_over_ground(
    grid: GeoGrid, result: Result, elevation: Elevation
) -> tuple[FloatArray, FloatArray]:
    """(2, N) pixels of the result, and where they are in the input."""
    height, width = result.grid.shape
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9)))
    lon, lat, h = localize_on_terrain(result.grid, x, y, elevation)
    return np.stack(grid.project(lon, lat, h)), np.stack([x, y])


def _fit(source: FloatArray, fine: FloatArray, result: Result) -> Affine | None:
    """The affine between points; None where it is none (two different maps).

    Raises:
        BadInputError: a result in sensor geometry that no affine explains.
    """
    terms = np.stack([*source, np.ones(source.shape[1])], 1)
    solved, *_ = np.linalg.lstsq(terms, fine.T)
    worst = float(np.abs(terms @ solved - fine.T).max())
    if worst <= _WORST:
        return Affine(*solved[:, 0], *solved[:, 1])
    if result.on_map:
        return None
    raise BadInputError(
        f"{result.path} is in sensor geometry, but not in that of its source: control points are "
        f"{worst:.1f} px off; give the source that it was made of"
    )
