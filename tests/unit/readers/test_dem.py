"""Heights over an area: tiles, voids, geoid, date line."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from l1bsr_geo.errors import BadInputError, GeometryWarning, MissingInputError
from l1bsr_geo.readers import dem
from l1bsr_geo.readers.dem import read_elevation

orthometric = pytest.mark.filterwarnings("ignore:.*heights are taken as above the ellipsoid")


def plane(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    return 1000 + 100 * (lon % 360) + 50 * lat


def write_tile(
    path: Path,
    west: float,
    north: float,
    *,
    step: float = 0.01,
    size: int = 100,
    crs: str = "EPSG:4326",
    void: bool = False,
    nodata: float | None = -32767,
    offset: float = 0.0,
) -> Path:
    x = west + (np.arange(size) + 0.5) * step
    y = north - (np.arange(size) + 0.5) * step
    heights = (plane(x[None, :], y[:, None]) + offset).astype(np.float32)
    if void:
        heights[:50] = -32767
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, count=1, dtype="float32",
        crs=crs, transform=Affine(step, 0, west, 0, -step, north), nodata=nodata,
    ) as out:  # fmt: skip
        out.write(heights, 1)
    return path


@orthometric
def test_heights_are_those_of_the_file(tmp_path: Path) -> None:
    path = write_tile(tmp_path / "a.tif", 5.0, 46.0)
    elevation = read_elevation(path, (5.3, 45.3, 5.5, 45.6))
    assert elevation.values.size < 30 * 40  # not the whole
    lon, lat = np.meshgrid(np.linspace(5.3, 5.5, 7), np.linspace(45.3, 45.6, 9))
    np.testing.assert_allclose(elevation.height(lon, lat), plane(lon, lat), atol=0.01)


@orthometric
def test_a_folder_of_tiles_is_searched_through(tmp_path: Path) -> None:
    write_tile(tmp_path / "e005/n45.tif", 5.0, 46.0)
    write_tile(tmp_path / "e006/deep/n45.tif", 6.0, 46.0)
    write_tile(tmp_path / "e100/n45.tif", 100.0, 46.0)
    (tmp_path / "readme.txt").write_text("not a tile")
    elevation = read_elevation(tmp_path, (5.9, 45.4, 6.1, 45.5))
    lon = np.linspace(5.9, 6.1, 50)
    np.testing.assert_allclose(elevation.height(lon, 45.45), plane(lon, 45.45), atol=0.02)


@orthometric
def test_voids_and_uncovered_ground_are_sea(tmp_path: Path) -> None:
    path = write_tile(tmp_path / "a.tif", 5.0, 46.0, void=True)
    elevation = read_elevation(path, (5.1, 45.2, 6.5, 45.9))
    assert elevation.height(5.2, 45.8) == 0
    assert elevation.height(6.4, 45.3) == 0
    assert elevation.height(5.2, 45.3) == pytest.approx(plane(5.2, 45.3), abs=0.01)
    assert np.isfinite(elevation.values).all()


@orthometric
def test_srtm_voids_without_a_nodata_tag_are_voids(tmp_path: Path) -> None:
    path = write_tile(tmp_path / "a.tif", 5.0, 46.0, void=True, nodata=None)
    elevation = read_elevation(path, (5.1, 45.2, 5.3, 45.9))
    assert elevation.height(5.2, 45.8) == 0
    assert elevation.height(5.2, 45.3) == pytest.approx(plane(5.2, 45.3), abs=0.01)
    with pytest.warns(GeometryWarning, match="no height within .* sea level is taken"):
        assert read_elevation(path, (5.1, 45.7, 5.3, 45.9)).height(5.2, 45.8) == 0


@orthometric
def test_the_date_line_is_crossed(tmp_path: Path) -> None:
    write_tile(tmp_path / "e179.tif", 179.0, 46.0)
    write_tile(tmp_path / "w180.tif", -180.0, 46.0)
    elevation = read_elevation(tmp_path, (179.9, 45.4, -179.9, 45.5))
    lon = np.array([179.95, 180.05])
    np.testing.assert_allclose(elevation.height(lon, 45.45), plane(lon, 45.45), atol=0.02)


@orthometric
def test_a_map_projected_dem_is_brought_to_lon_lat(tmp_path: Path) -> None:
    path = tmp_path / "utm.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=100, height=100, count=1, dtype="int16",
        crs="EPSG:32631", transform=Affine(30, 0, 5e5, 0, -30, 5e6),
    ) as out:  # fmt: skip
        out.write(np.full((1, 100, 100), 321, np.int16))
    elevation = read_elevation(path, (3.01, 45.13, 3.02, 45.14))
    assert elevation.height(3.015, 45.135) == 321


@orthometric
def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dem, "_MAX_PIXELS", 500)
    path = write_tile(tmp_path / "a.tif", 5.0, 46.0)
    elevation = read_elevation(path, (5.2, 45.2, 5.8, 45.8))
    assert elevation.values.size < 700
    assert elevation.height(5.5, 45.5) == pytest.approx(plane(5.5, 45.5), abs=1)


def test_the_geoid_is_added(tmp_path: Path, shared: Path) -> None:
    path = write_tile(tmp_path / "a.tif", -17.5, 33.0, void=True)
    elevation = read_elevation(path, (-17.2, 32.2, -16.8, 32.8), shared / "data/geoid/egm96_15.gtx")
    with rasterio.open(shared / "data/geoid/egm96_15.gtx") as raster:
        (undulation,), (at_void,) = raster.sample([(-17.0, 32.25), (-17.0, 32.75)])
    assert 40 < undulation < 55  # Madeira
    assert elevation.height(-17.0, 32.25) == pytest.approx(
        plane(-17.0, 32.25) + undulation, abs=0.05
    )
    assert elevation.height(-17.0, 32.75) == pytest.approx(at_void, abs=0.05)  # a void is sea


def test_official_node_heights_are_found(shared: Path) -> None:
    """Sen2VM's own altitudes of the sea and of a 1600 m high node of Madeira."""
    folder = shared / "data/sen2vm_tds1"
    nodes = np.array([[-17.9, 33.5], [-17.4, 33.0], [-16.9, 32.75]])
    elevation = read_elevation(
        folder / "DEM", (-17.95, 32.7, -16.8, 33.6), shared / "data/geoid/egm96_15.gtx"
    )
    h = elevation.height(nodes[:, 0], nodes[:, 1])
    assert 42 < h[0] < 48
    assert 42 < h[1] < 48
    assert h[2] > 600


def test_a_vertical_datum_that_is_not_known_is_a_warning(tmp_path: Path) -> None:
    path = write_tile(tmp_path / "a.tif", 5.0, 46.0)
    with pytest.warns(GeometryWarning, match=r"up to 100 m .* give the geoid"):
        read_elevation(path, (5.3, 45.3, 5.5, 45.6))
    ellipsoidal = write_tile(tmp_path / "b.tif", 5.0, 46.0, crs="EPSG:4979")
    read_elevation(ellipsoidal, (5.3, 45.3, 5.5, 45.6))


def test_dems_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    bounds = (5.3, 45.3, 5.5, 45.6)
    far = write_tile(tmp_path / "far/a.tif", 100.0, 46.0)
    bad = tmp_path / "bad/a.tif"
    bad.parent.mkdir()
    bad.write_text("x")
    with pytest.raises(MissingInputError, match=r"gone is not there"):
        read_elevation(tmp_path / "gone", bounds)
    with pytest.raises(MissingInputError, match=r"far has no DEM .* touches .* out of 1 files"):
        read_elevation(far.parent, bounds)
    with pytest.raises(BadInputError, match=r"a\.tif cannot be read as a DEM"):
        read_elevation(bad, bounds)
    with pytest.raises(BadInputError, match="no west, south, east, north"):
        read_elevation(far, (5.3, 45.6, 5.5, 45.3))
    with pytest.raises(MissingInputError, match=r"no\.gtx is not there"):
        read_elevation(far, (100.3, 45.3, 100.5, 45.6), tmp_path / "no.gtx")
    with pytest.raises(BadInputError, match="beyond 200 m; a geoid"):
        read_elevation(far, (100.3, 45.3, 100.5, 45.6), far)
