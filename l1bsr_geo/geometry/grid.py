"""Window and GeoGrid: a geometry is a model seen through an affine.

Cropping, padding and zooming compose ``to_model``; the model itself is never rewritten.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.model import Aligned, FloatArray, GeometryModel

_IDENTITY = Affine.identity()


class Window(NamedTuple):
    """A rectangle of pixels, in rasterio's order; may reach outside an image until clipped."""

    col_off: int
    row_off: int
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into an array that holds the whole image."""
        return (
            slice(self.row_off, self.row_off + self.height),
            slice(self.col_off, self.col_off + self.width),
        )

    def grow(self, margin: int) -> "Window":
        """The window with ``margin`` pixels more on each side."""
        return Window(
            self.col_off - margin,
            self.row_off - margin,
            self.width + 2 * margin,
            self.height + 2 * margin,
        )

    def intersect(self, other: "Window") -> "Window":
        """The common part; width and height are zero where there is none."""
        left, top = max(self.col_off, other.col_off), max(self.row_off, other.row_off)
        right = min(self.col_off + self.width, other.col_off + other.width)
        bottom = min(self.row_off + self.height, other.row_off + other.height)
        return Window(left, top, max(0, right - left), max(0, bottom - top))

    def scale(self, factor: int) -> "Window":
        """The same pixels on a grid ``factor`` times finer."""
        return Window(*(v * factor for v in self))

    def shift(self, cols: int, rows: int) -> "Window":
        """The window moved by whole pixels."""
        return self._replace(col_off=self.col_off + cols, row_off=self.row_off + rows)


@dataclass(frozen=True)
class GeoGrid:
    """Pixels of one shape and where they are.

    Attributes:
        shape: ``(height, width)`` in pixels.
        model: the geometry, or None for an image that has none.
        to_model: maps pixel coordinates of this grid to pixel coordinates of the model.
    """

    shape: tuple[int, int]
    model: GeometryModel | None = None
    to_model: Affine = _IDENTITY

    @property
    def window(self) -> Window:
        """The whole grid as a window."""
        return Window(0, 0, self.shape[1], self.shape[0])

    def crop(self, window: Window) -> "GeoGrid":
        """The grid of a window of this one; a window that reaches outside pads."""
        to_model = self.to_model @ Affine.translation(window.col_off, window.row_off)
        return replace(self, shape=window.shape, to_model=to_model)

    def pad(self, margin: int) -> "GeoGrid":
        """The grid with ``margin`` pixels more on each side."""
        return self.crop(self.window.grow(margin))

    def zoom(self, scale: float, aligned: Aligned = "corner") -> "GeoGrid":
        """The grid with pixels ``scale`` times finer.

        Args:
            scale: how many fine pixels to a pixel, per axis.
            aligned: ``"corner"`` keeps the outer corner (fine pixels tile the coarse ones);
                ``"centre"`` puts fine sample ``scale * i`` on coarse sample ``i`` (DSA, HDR-DSP).
        """
        height, width = (round(n * scale) for n in self.shape)
        fine_to_coarse = Affine.scale(1 / scale)
        if aligned == "centre":
            half = 0.5 - 0.5 / scale
            fine_to_coarse = Affine.translation(half, half) @ fine_to_coarse
        return replace(self, shape=(height, width), to_model=self.to_model @ fine_to_coarse)

    def localize(
        self, x: npt.ArrayLike, y: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Pixel of this grid to ``lon, lat`` [degrees] at height ``h`` [m]."""
        return self._located().localize(*_apply(self.to_model, x, y), h)

    def project(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """``lon, lat`` [degrees] at height ``h`` [m] to a pixel of this grid."""
        return _apply(~self.to_model, *self._located().project(lon, lat, h))

    def footprint(self, h: float = 0.0, points_per_side: int = 16) -> shapely.Polygon:
        """The outline on the ground at height ``h`` [m], ``lon, lat``."""
        height, width = self.shape
        t = np.linspace(0.0, 1.0, points_per_side, endpoint=False)
        one, zero = np.ones_like(t), np.zeros_like(t)
        x = np.concatenate([t, one, 1 - t, zero]) * width
        y = np.concatenate([zero, t, one, 1 - t]) * height
        return shapely.Polygon(np.column_stack(self.localize(x, y, h)))

    def _located(self) -> GeometryModel:
        if self.model is None:
            raise BadInputError(
                "the image has no geometry (no CRS, RPC or sensor model was found), and a place on "
                "the ground was asked for; use --no-ortho to stay in pixel coordinates"
            )
        return self.model


def _apply(affine: Affine, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f
