"""A slanted view with a known answer, and images whose pixels are a formula."""

from collections.abc import Callable
from dataclasses import dataclass, field

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from affine import Affine

from l1bsr_geo.geometry.affine import AffineModel, lonlat_to_map
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.pixels import GeoImage

UTM = "EPSG:32633"


@dataclass(frozen=True)
class SlantedView:
    """Pixels of a plane that is turned and slightly bent, seen from aside.

    With q = pixel + bend * (pixel / 1000)^2 in x:  map = transform(q) + parallax * h + curve * h^2.
    """

    transform: Affine = Affine.translation(5e5, 5e6) @ Affine.rotation(-12) @ Affine.scale(5, -5)
    parallax: tuple[float, float] = (0.25, -0.1)
    curve: float = 1e-6
    bend: float = 0.5

    def project(self, lon, lat, h=0.0):
        lon, lat, h = np.broadcast_arrays(*(np.asarray(v, float) for v in (lon, lat, h)))
        e, n = lonlat_to_map(UTM).transform(lon, lat)
        return self.from_map(e, n, h)

    def localize(self, x, y, h=0.0):
        x, y, h = np.broadcast_arrays(*(np.asarray(v, float) for v in (x, y, h)))
        e, n = self.transform @ (x + self.bend * (x / 1000) ** 2, y)
        dx, dy = self._shift(h)
        return lonlat_to_map(UTM).transform(e + dx, n + dy, direction="INVERSE")

    def from_map(self, e, n, h):
        dx, dy = self._shift(h)
        q, y = ~self.transform @ (e - dx, n - dy)
        k = self.bend / 1e6
        return (np.sqrt(1 + 4 * k * q) - 1) / (2 * k), y

    def _shift(self, h):
        return self.parallax[0] * h + self.curve * h**2, self.parallax[1] * h


@dataclass(frozen=True)
class Hill:
    """Steep terrain on the map: 0 to 800 m within a kilometre."""

    def height(self, lon, lat):
        e, n = lonlat_to_map(UTM).transform(lon, lat)
        return self.on_map(np.asarray(e), np.asarray(n))

    @staticmethod
    def on_map(e, n):
        return 400 + 400 * np.sin((e - 5e5) / 300) * np.cos((n - 5e6) / 400)


@dataclass
class Source:
    """A lazy image whose chunks count how often they are computed."""

    image: GeoImage
    formula: Callable
    computed: dict[tuple[int, int], int] = field(default_factory=dict)


def formula(x, y):
    """A smooth image: it bends so little that cubic convolution is exact to 0.1 DN."""
    return 2000 + 500 * np.sin(x / 20) * np.cos(y / 25) + 300 * np.cos((x + 2 * y) / 40)


STEEPEST = 500 / 20 + 300 * 5**0.5 / 40  # [DN/px]


@pytest.fixture
def make_source():
    def make(shape=(300, 260), *, model=None, dtype="float32", chunks=(90, 70), holes=(), **attrs):
        computed: dict[tuple[int, int], int] = {}

        def draw(block_info):
            (_, (top, bottom), (left, right)) = block_info[None]["array-location"]
            computed[top, left] = computed.get((top, left), 0) + 1
            x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
            bands = np.stack([formula(x, y), formula(x + 7, y - 3)])
            return (np.rint(bands) if np.dtype(dtype).kind in "iu" else bands).astype(dtype)

        pixels = da.map_blocks(
            draw,
            chunks=((2,), *da.core.normalize_chunks(chunks, shape)),
            dtype=dtype,
            meta=np.empty((0, 0, 0), dtype),
        )
        valid = np.ones(shape, bool)
        for hole in holes:
            valid[hole] = False
        image = GeoImage(
            xr.DataArray(
                pixels, dims=("band", "y", "x"), coords={"band": ["B03", "B04"]}, attrs=attrs
            ),
            GeoGrid(shape, model or SlantedView()),
            xr.DataArray(valid, dims=("y", "x")),
        )
        return Source(image, formula, computed)

    return make


@pytest.fixture
def view():
    return SlantedView()


@pytest.fixture
def hill():
    return Hill()


@pytest.fixture
def steepest():
    """The largest change of the image per pixel [DN]."""
    return STEEPEST


@pytest.fixture
def map_image():
    """A small image on a map, in memory, with a hole, an odd size and all attributes."""

    def make(shape=(333, 217), dtype="uint16", count=3, seed=0, **attrs):
        random = np.random.default_rng(seed)
        pixels = random.uniform(1, 200, (count, *shape))
        pixels = pixels.astype(dtype)
        valid = np.ones(shape, bool)
        valid[: shape[0] // 2, : shape[1] // 2] = False
        transform = Affine(5, 0, 5e5, 0, -5, 5e6)
        names = ["B02", "B03", "B04", "B08"][:count]
        return GeoImage(
            xr.DataArray(pixels, dims=("band", "y", "x"), coords={"band": names}, attrs=attrs),
            GeoGrid(shape, AffineModel(transform, UTM)),
            xr.DataArray(valid, dims=("y", "x")),
        )

    return make
