"""Patches of a map on which an image and a reference are drawn and compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import dask.base
import numpy as np
import numpy.typing as npt
from affine import Affine

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.georef.map_grid import choose_map_grid
from l1bsr_geo.georef.orthorectify import orthorectify
from l1bsr_geo.images.pixels import GeoImage

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Match: TypeAlias = Callable[[F32, Mask, F32, Mask], tuple[float, float, float]]
"""Pixels and validity of a patch of the reference, then of the image, to dx, dy [px] and its
significance: what the reference shows at p is in the image at p + (dx, dy)."""

# [px] sides of patches and steps between them: the largest of which there are enough
_SIZES = ((96, 48), (64, 32), (48, 24), (48, 12))
_ENOUGH = 16  # patches
_MOST = 100  # patches: more take time and tell nothing new
_INSIDE = 0.35  # of the size, from the centre: corners that must be inside both images
_VALID = 0.6  # share of a patch that must be known in both images
_FLAT = ConstantElevation()  # the height of what is on a map already has no effect


@dataclass(frozen=True)
class Found:
    """What N patches say.

    Attributes:
        offset: (N, 2) dx, dy [px of the map]: what should be at p is at p + offset.
        shift: (N, 2) dx, dy [px of the image] by which its geometry must be shifted.
        centre: (N, 2) x, y of the patches [px of the map].
        significance: (N,) 0 where too little is known.
    """

    offset: F64
    shift: F64
    centre: F64
    significance: F64


@dataclass(frozen=True)
class Comparison:
    """An image and a reference over the same patches.

    Attributes:
        image: one band, in any geometry.
        elevation: terrain.
        match: how two patches are compared.
        grid: of the map.
        windows: of the patches, all of one size.
        step: between patches, over their size.
        references: the reference on the patches.
    """

    image: GeoImage
    elevation: Elevation
    match: Match
    grid: GeoGrid
    windows: Sequence[Window]
    step: float
    references: Sequence[tuple[F32, Mask]]

    @classmethod
    def at(
        cls,
        image: GeoImage,
        reference: GeoImage,
        match: Match,
        elevation: Elevation,
        crs: str,
        resolution: float,
    ) -> "Comparison":
        """Cut patches out of what both show, and draw the reference on them."""
        grid = choose_map_grid(image.grid, crs=crs, resolution=resolution, elevation=elevation)
        seen = ((image.grid, elevation), (reference.grid, _FLAT))
        for size, step in _SIZES:
            while len(windows := _cut(grid, seen, size, step)) > _MOST:
                step += max(1, step // 8)
            if len(windows) >= _ENOUGH:
                break
        drawn = _draw(reference, grid, windows, _FLAT)
        return cls(image, elevation, match, grid, windows, step / size, drawn)

    def measure(self, shift: F64) -> Found:
        """Match every patch, the image's geometry being shifted already by (dx, dy) [px]."""
        moved = replace(self.image, grid=shift_grid(self.image.grid, *shift))
        drawn = _draw(moved, self.grid, self.windows, self.elevation)
        found = np.zeros((len(self.windows), 3))
        for row, ours, theirs in zip(found, drawn, self.references, strict=True):
            if (ours[1] & theirs[1]).mean() >= _VALID:
                row[:] = self.match(*theirs, *ours)
        offset, significance = found[:, :2], found[:, 2]
        centre = _centres(self.windows)
        right = _project(self.grid, moved.grid, self.elevation, centre)
        wrong = _project(self.grid, moved.grid, self.elevation, centre + offset)
        return Found(offset, right - wrong, centre, significance)

    def only(self, kept: Mask) -> "Comparison":
        """Some of the patches."""
        windows = [w for w, keep in zip(self.windows, kept, strict=True) if keep]
        references = [r for r, keep in zip(self.references, kept, strict=True) if keep]
        return replace(self, windows=windows, references=references)


def shift_grid(grid: GeoGrid, dx: float, dy: float) -> GeoGrid:
    """The grid whose pixel p is where p + (dx, dy) was."""
    return replace(grid, to_model=grid.to_model @ Affine.translation(dx, dy))


def crop_reference(reference: GeoImage, image: GeoGrid, h: float) -> GeoImage:
    """The part of a reference that an image may show, whose ground is at about h [m].

    Raises:
        BadOptionError: there is none.
    """
    x, y = reference.grid.project(*np.array(image.footprint(h).exterior.coords).T)
    if np.isfinite([x, y]).all():
        left, top, right, bottom = (int(v) for v in (x.min(), y.min(), x.max(), y.max()))
        window = Window(left, top, right - left + 1, bottom - top + 1)
        window = window.grow(64 + max(window.shape) // 10).intersect(reference.grid.window)
        if min(window.shape):
            rows, columns = window.slices
            valid = None if reference.valid is None else reference.valid[rows, columns]
            grid = reference.grid.crop(window)
            return GeoImage(reference.pixels[:, rows, columns], grid, valid)
    raise BadOptionError(
        "the reference does not touch the image; --refine takes an ortho image of the same place"
    )


def _cut(
    grid: GeoGrid,
    seen: Sequence[tuple[GeoGrid, Elevation]],
    size: int,
    step: int,
) -> list[Window]:
    """Windows of a size, every ``step`` pixels or so, most of which all grids show."""
    if min(grid.shape) < size:
        return []
    top, left = (
        np.rint(np.linspace(0, n - size, (n - size) // step + 1)).astype(int) for n in grid.shape
    )
    windows = [Window(int(x), int(y), size, size) for y in top for x in left]
    shown = np.ones(len(windows), bool)
    inside = _INSIDE * size
    for aside in ((-inside, -inside), (inside, -inside), (-inside, inside), (inside, inside)):
        for other, elevation in seen:
            x, y = _project(grid, other, elevation, _centres(windows) + aside).T
            shown &= (x >= 0) & (x <= other.shape[1]) & (y >= 0) & (y <= other.shape[0])
    return [window for window, kept in zip(windows, shown, strict=True) if kept]


def _centres(windows: Sequence[Window]) -> F64:
    """(N, 2) x, y."""
    centres = [(w.col_off + w.width / 2, w.row_off + w.height / 2) for w in windows]
    return np.array(centres, np.float64).reshape(-1, 2)


def _project(grid: GeoGrid, other: GeoGrid, elevation: Elevation, points: F64) -> F64:
    """Pixels (N, 2) of one grid that show what is at pixels (N, 2) of a map."""
    lon, lat = grid.localize(*points.T)
    return np.stack(other.project(lon, lat, elevation.height(lon, lat)), -1)


def _draw(
    image: GeoImage, grid: GeoGrid, windows: Sequence[Window], elevation: Elevation
) -> list[tuple[F32, Mask]]:
    """Pixels and validity on windows of a map; every chunk of the image is read once."""
    drawn = [
        orthorectify(image, onto=grid.crop(w), elevation=elevation, block=w.width) for w in windows
    ]
    lazy = [(d.pixels.data[0], d.valid.data) for d in drawn if d.valid is not None]
    patches: list[tuple[F32, Mask]] = dask.base.compute(lazy)[0]
    return patches
