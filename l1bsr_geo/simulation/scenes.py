"""Map scenes whose truth is known everywhere: procedural landscapes, rasters, relief.

A scene is a raster in a map projection, fine against the pixels rendered from it; a cubic spline
gives its value at any place. ``seen_by`` blurs it to what an instrument of a given MTF samples, and
is the truth that a rendered product and everything made of it are compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.elevation import SampledElevation

TEN_METRE_BANDS = ("B02", "B03", "B04", "B08")
MTF = {"B02": 0.26, "B03": 0.28, "B04": 0.24, "B08": 0.26}  # at the Nyquist frequency of 10 m
"""Source: the SupReME / S2Sharp family of codes."""

# DN (zero is no light) of B02 B03 B04 B08. Source: order of the percentiles of real L1B crops.
_LAND = np.array(
    [
        [182, 196, 112, 540],  # meadow
        [178, 188, 108, 470],  # maize
        [205, 225, 185, 430],  # stubble
        [222, 246, 262, 345],  # bare soil
        [245, 285, 318, 400],  # ripe grain
        [186, 204, 128, 500],  # orchard
    ],
    np.float32,
)
_FOREST = np.array([160, 163, 88, 425], np.float32)
_ROAD = np.array([262, 268, 258, 285], np.float32)
_ROOFS = np.array(
    [[420, 450, 470, 500], [260, 275, 370, 440], [640, 680, 700, 720], [215, 215, 205, 220]],
    np.float32,
)
_WATER = np.array([176, 152, 82, 54], np.float32)

Metres = npt.NDArray[np.float32]
Bounds = tuple[float, float, float, float]  # west, south, east, north


@dataclass(frozen=True, eq=False)
class MapScene:
    """Radiance over a piece of a map, as DN above no light.

    Attributes:
        pixels: (C, rows, columns) float32 [DN].
        transform: raster (outer corner) to map coordinates, north up.
        crs: of the map, a projected one [m].
        bands: names along C.
    """

    pixels: npt.NDArray[np.float32]
    transform: Affine
    crs: str
    bands: tuple[str, ...] = TEN_METRE_BANDS

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north [m]."""
        rows, columns = self.pixels.shape[1:]
        west, north = self.transform @ (0, 0)
        east, south = self.transform @ (columns, rows)
        return west, south, east, north

    def sample(self, band: str, e: npt.ArrayLike, n: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """DN of a band at map positions [m], cubic; NaN outside the scene."""
        x, y = ~self.transform @ (np.asarray(e, np.float64), np.asarray(n, np.float64))
        x, y = np.broadcast_arrays(x, y)
        values = ndimage.map_coordinates(
            self._coefficients[self.bands.index(band)],
            np.stack([y.ravel(), x.ravel()]) - 0.5,
            order=3,
            prefilter=False,
            mode="constant",
            cval=np.nan,
        )
        return np.asarray(values.reshape(x.shape), np.float32)

    def seen_by(self, mtf: Mapping[str, float] = MTF, pixel: float = 10.0) -> "MapScene":
        """The scene as an instrument samples it: Gaussian blur with an MTF at its Nyquist.

        Args:
            mtf: band to modulation at the frequency 1 / (2 pixel), between 0 and 1.
            pixel: sampling step of the instrument [m].
        """
        blurred = np.empty_like(self.pixels)
        for k, band in enumerate(self.bands):
            sigma = pixel * np.sqrt(-2 * np.log(mtf[band])) / np.pi / self.transform.a
            ndimage.gaussian_filter(self.pixels[k], sigma, output=blurred[k], mode="nearest")
        return replace(self, pixels=blurred)

    @cached_property
    def _coefficients(self) -> npt.NDArray[np.float32]:
        return np.stack(
            [ndimage.spline_filter(band, 3, np.float32, mode="mirror") for band in self.pixels]
        )


def read_scene(path: str | Path, bands: Sequence[str] = TEN_METRE_BANDS) -> MapScene:
    """A scene from a raster with a projected CRS, one raster band to each of ``bands``.

    Raises:
        BadInputError: another number of bands, no projected CRS, or not north up.
    """
    with rasterio.open(path) as raster:
        if raster.count != len(bands):
            raise BadInputError(
                f"{path} has {raster.count} bands; {len(bands)} were expected: {', '.join(bands)}"
            )
        if raster.crs is None or not raster.crs.is_projected:
            raise BadInputError(
                f"{path} has CRS {raster.crs}; a scene needs a projected one in metres: warp it"
            )
        if raster.transform.b or raster.transform.d:
            raise BadInputError(f"{path} is not north up; warp it first")
        return MapScene(
            raster.read().astype(np.float32), raster.transform, raster.crs.to_wkt(), tuple(bands)
        )


def procedural_scene(bounds: Bounds, crs: str, seed: int = 0, pixel: float = 5.0) -> MapScene:
    """A landscape of fields, roads, woods, villages and water, in the four 10 m bands.

    Vegetation is dark in the visible and bright in B08, as in real crops; there is detail at every
    scale down to the pixel.

    Args:
        bounds: west, south, east, north [m]; widened to whole pixels.
        crs: a projected CRS in metres.
        seed: of everything random.
        pixel: raster pixel [m]; 5 m keeps all that 10 m samples of MTF 0.26 can show.
    """
    west, south, east, north = bounds
    columns, rows = (int(np.ceil(d / pixel)) for d in (east - west, north - south))
    rng = np.random.default_rng(seed)
    x = (np.arange(columns)[None, :] + 0.5).astype(np.float32) * np.float32(pixel)
    y = (np.arange(rows)[:, None] + 0.5).astype(np.float32) * np.float32(pixel)
    district, count = _districts((rows, columns), 1400 / pixel, rng)
    turn = rng.uniform(0, np.pi, count).astype(np.float32)[district]
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    kind = rng.choice(3, count, p=(0.66, 0.2, 0.14))[district]  # fields, woods, villages

    pixels = _fields(u, v, district, rng)
    fine, coarse = _texture((rows, columns), 1.1, rng), _texture((rows, columns), 60 / pixel, rng)
    woods = (kind == 1) | (_texture((rows, columns), 250 / pixel, rng) > 1.5)
    pixels[:, woods] = (_FOREST[:, None] * (1 + 0.10 * fine[woods])).astype(np.float32)
    _build_villages(pixels, (kind == 2) & ~woods, u, v, fine, rng)
    _draw_roads(pixels, x, y, rng, pixel)
    pixels *= 1 + 0.025 * fine + 0.05 * coarse
    _draw_river(pixels, x, y, rng, pixel)
    return MapScene(pixels, Affine(pixel, 0, west, 0, -pixel, north), crs)


def relief(
    bounds: Bounds, seed: int = 0, low: float = 150.0, high: float = 900.0
) -> SampledElevation:
    """Smooth hills over lon/lat bounds, one node per 3 arc seconds.

    Args:
        bounds: west, south, east, north [degrees].
        seed: of the hills.
        low: about the lowest height [m above the ellipsoid].
        high: about the highest.
    """
    step = 3 / 3600
    west, south, east, north = bounds
    columns, rows = (int(np.ceil(d / step)) + 1 for d in (east - west, north - south))
    rng = np.random.default_rng(seed)
    hills = np.zeros((rows, columns), np.float32)
    for weight, metres in ((1.0, 1800), (0.35, 700), (0.1, 300)):
        hills += weight * _texture((rows, columns), metres / 90, rng)
    span = (hills - hills.min()) / max(float(np.ptp(hills)), 1e-9)
    return SampledElevation((low + (high - low) * span).astype(np.float32), west, north, step, step)


def write_dem(path: str | Path, elevation: SampledElevation) -> None:
    """Write relief as a GeoTIFF in EPSG:4979: heights above the WGS84 ellipsoid."""
    rows, columns = elevation.values.shape
    step_lon, step_lat = elevation.step_lon, elevation.step_lat
    west, north = elevation.west - step_lon / 2, elevation.north + step_lat / 2
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=columns,
        height=rows,
        count=1,
        dtype="float32",
        crs="EPSG:4979",  # three-dimensional: nobody needs to ask what the heights are above
        transform=Affine(step_lon, 0, west, 0, -step_lat, north),
        compress="deflate",
        predictor=3,
    ) as raster:
        raster.write(elevation.values, 1)
        raster.set_band_description(1, "height above the WGS84 ellipsoid [m]")


def _fields(
    u: Metres, v: Metres, district: npt.NDArray[np.intp], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Parcels in turned rows, each of one crop with its own shade and plough lines."""
    across, along = np.floor(u / 170), np.floor(v / 95 + 0.5 * (np.floor(u / 170) % 2))
    parcel = _hash(across, along, district)
    crop = (parcel % 97) % len(_LAND)
    shade = (0.88 + 0.45 * ((parcel // 97) % 101) / 101).astype(np.float32)
    lines = np.where((parcel // 9797) % 2, u, v) / (24 + (parcel // 19594) % 30)
    shade *= 1 + 0.04 * np.sign(np.sin(2 * np.pi * lines)).astype(np.float32)
    pixels = np.ascontiguousarray(_LAND.T[:, crop]) * shade
    edge = np.minimum(u % 170, v % 95) < 6  # farm tracks
    pixels[:, edge] = 0.5 * pixels[:, edge] + 0.5 * _ROAD[:, None]
    return pixels


def _build_villages(
    pixels: npt.NDArray[np.float32],
    where: npt.NDArray[np.bool_],
    u: Metres,
    v: Metres,
    fine: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    """Plots of a house and a garden, with streets."""
    plot = _hash(np.floor(u / 36), np.floor(v / 30), np.zeros_like(u, np.intp))[where]
    du, dv = u[where] % 36, v[where] % 30
    garden = _LAND[0] * 0.9
    local = garden[:, None] * (1 + 0.18 * fine[where])
    width, depth = 10 + plot % 11, 9 + (plot // 11) % 9
    du, dv = du - 4 - plot // 7 % 9, dv - 4 - plot // 13 % 9  # no two houses in a row line up
    house = (du > 0) & (du < width) & (dv > 0) & (dv < depth) & (plot % 5 > 0)
    local[:, house] = _ROOFS[(plot[house] // 99) % len(_ROOFS)].T
    street = (np.mod(u[where], 144) < 9) | (np.mod(v[where], 120) < 8)
    local[:, street] = _ROAD[:, None]
    pixels[:, where] = local.astype(np.float32)


def _draw_roads(
    pixels: npt.NDArray[np.float32],
    x: Metres,
    y: Metres,
    rng: np.random.Generator,
    pixel: float,
) -> None:
    """A few long, slightly winding roads."""
    extent = max(float(x[0, -1]), float(y[-1, 0]))
    for _ in range(max(2, round(extent / 1500))):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.2, 1.2) * extent
        bend, wave, phase = rng.uniform(30, 120), rng.uniform(900, 2500), rng.uniform(0, 6.28)
        s = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle) - offset + extent / 2
        d = np.abs(across + bend * np.sin(s * (2 * np.pi / wave) + phase))
        _paint(pixels, (8 - d) / pixel + 0.5, _ROAD)


def _draw_river(
    pixels: npt.NDArray[np.float32],
    x: Metres,
    y: Metres,
    rng: np.random.Generator,
    pixel: float,
) -> None:
    """A meandering river from north to south."""
    middle = float(x[0, -1]) * rng.uniform(0.3, 0.7)
    a, b = rng.uniform(0, 6.28, 2)
    centre = middle + 420 * np.sin(y / 1300 + a) + 130 * np.sin(y / 410 + b)
    width = 45 + 20 * np.sin(y / 900 + b)
    slope = np.cos(np.arctan(420 / 1300 * np.cos(y / 1300 + a) + 130 / 410 * np.cos(y / 410 + b)))
    _paint(pixels, (width - np.abs(x - centre) * slope) / pixel + 0.5, _WATER)


def _paint(pixels: npt.NDArray[np.float32], cover: Metres, colour: npt.NDArray[np.float32]) -> None:
    """Blend a colour in where ``cover`` (clipped to 0..1) says."""
    rows, columns = np.nonzero(cover > 0)
    weight = np.clip(cover[rows, columns], 0, 1).astype(np.float32)
    under = pixels[:, rows, columns]
    pixels[:, rows, columns] = under + weight * (colour[:, None] - under)


def _districts(
    shape: tuple[int, int], spacing: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], int]:
    """Cells around jittered points: index of the nearest point, and how many there are."""
    counts = [max(1, round(n / spacing)) for n in shape]
    i, j = (g.ravel() for g in np.meshgrid(*(np.arange(c) for c in counts), indexing="ij"))
    rows = ((i + rng.uniform(0.1, 0.9, i.size)) / counts[0] * shape[0]).astype(np.intp)
    columns = ((j + rng.uniform(0.1, 0.9, j.size)) / counts[1] * shape[1]).astype(np.intp)
    seeds = np.zeros(shape, np.intp)
    seeds[rows, columns] = np.arange(i.size)
    empty = np.ones(shape, bool)
    empty[rows, columns] = False
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return seeds[tuple(nearest)], i.size


def _texture(
    shape: tuple[int, int], sigma: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Gaussian noise of a scale [px], mean 0 and standard deviation 1."""
    coarser = max(1, int(sigma / 2))  # smooth noise is made small and enlarged
    small = [n // coarser + 4 for n in shape]
    noise = rng.standard_normal(small, np.float32)
    noise = ndimage.gaussian_filter(noise, sigma / coarser, mode="wrap")
    if coarser > 1:
        at = [np.arange(n, dtype=np.float32) / coarser + 1 for n in shape]
        noise = ndimage.map_coordinates(noise, np.meshgrid(*at, indexing="ij"), order=1)
    noise = noise[: shape[0], : shape[1]]
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-9), np.float32)


def _hash(a: Metres, b: Metres, c: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Non-negative pseudo-random integers of cells."""
    with np.errstate(over="ignore"):
        h = (
            a.astype(np.int64) * 73856093 ^ b.astype(np.int64) * 19349663 ^ c * 83492791
        ) * 2654435761
    return np.asarray((h >> 16) & 0x7FFFFFFF)
