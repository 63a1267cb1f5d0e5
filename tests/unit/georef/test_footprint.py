"""Outlines against polygons that are known in closed form."""

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint

from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.georef.footprint import find_footprint
from l1bsr_geo.readers.local_raster import open_raster

UTM = "EPSG:32633"


@pytest.fixture
def write(tmp_path):
    """A raster whose mask is given."""

    def make(valid, **profile):
        path = tmp_path / "out.tif"
        height, width = valid.shape
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=height, width=width, dtype="uint8",
            nodata=0, compress="deflate", **profile,
        ) as file:  # fmt: skip
            file.write(valid[None].astype(np.uint8))
        return path

    return make


def outline(path, height=None):
    with open_raster(path) as raster:
        return find_footprint(raster, height)


def on_map(area, crs=UTM):
    to_map = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform
    return shapely.transform(area, lambda p: np.column_stack(to_map(p[:, 0], p[:, 1])))


def test_a_full_map_is_its_rectangle(write):
    transform = Affine(5, 0, 5e5, 0, -5, 5e6)
    found = outline(write(np.ones((300, 200), bool), crs=UTM, transform=transform))
    truth = shapely.box(5e5, 5e6 - 1500, 5e5 + 1000, 5e6)
    assert shapely.hausdorff_distance(on_map(found.area), truth) < 0.02  # [m]
    assert found.pixel == 5
    assert found.bbox == found.area.bounds
    ring = found.area.exterior
    assert ring.is_ccw


@pytest.mark.parametrize("side", [600, 1500])
def test_a_slanting_scene_with_a_hole(write, side):
    rows, columns = np.mgrid[:side, :side] + 0.5
    corners = np.array([(0.1, 0.3), (0.7, 0.05), (0.95, 0.75), (0.3, 0.95)]) * side
    truth = shapely.Polygon(corners) - shapely.box(*(np.array([0.4, 0.4, 0.55, 0.6]) * side))
    valid = shapely.contains_xy(truth, columns, rows)
    valid[int(0.5 * side), int(0.3 * side)] = False  # one pixel is no hole
    transform = Affine(10, 0, 5e5, 0, -10, 5e6)
    found = outline(write(valid, crs=UTM, transform=transform))
    truth = shapely.transform(truth, lambda p: np.column_stack(transform @ p.T))
    off = shapely.hausdorff_distance(on_map(found.area), truth)
    assert off < 0.003 * side * 10
    assert abs(on_map(found.area).area / truth.area - 1) < 0.002
    assert len(found.area.interiors) == 1
    assert shapely.count_coordinates(found.area) < 100


def test_ragged_data_are_told_by_few_points(write):
    random = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(random.standard_normal((400, 400)), 0), 1)
    found = outline(
        write(smooth > np.median(smooth), crs=UTM, transform=Affine(5, 0, 5e5, 0, -5, 5e6))
    )
    assert shapely.count_coordinates(found.area) < 1500
    assert found.area.is_valid


def test_control_points_in_sensor_geometry(view, write):
    """Points of a slanted, bent view on a sloping plane."""
    shape = 240, 320
    rows, columns = (a.ravel() for a in np.meshgrid(*(np.linspace(0, n, 12) for n in shape)))
    lon, lat = view.localize(columns, rows, 300.0)
    points = [
        GroundControlPoint(row, column, x, y, 300.0)
        for row, column, x, y in zip(rows, columns, lon, lat, strict=True)
    ]
    found = outline(write(np.ones(shape, bool), crs="EPSG:4326", gcps=points))
    t = np.linspace(0, 1, 50)
    x = np.concatenate([t, 1 + 0 * t, 1 - t, 0 * t]) * shape[1]
    y = np.concatenate([0 * t, t, 1 + 0 * t, 1 - t]) * shape[0]
    truth = shapely.Polygon(np.column_stack(view.localize(x, y, 300.0)))
    assert shapely.hausdorff_distance(on_map(found.area), on_map(truth)) < 0.5  # [m], pixels of 5 m
    assert found.pixel == pytest.approx(5, rel=0.01)


def test_across_the_antimeridian(write):
    """60S is the zone east of it, so that a map of it reaches over to the west."""
    to_map = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True)
    east, north = to_map.transform(179.9, -16.5)
    transform = Affine(100, 0, east, 0, -100, north)
    found = outline(write(np.ones((200, 400), bool), crs="EPSG:32760", transform=transform))
    west, south, right, top = found.bbox
    assert 179.8 < west <= 180
    assert -180 <= right < -179.7
    assert south < top
    assert found.area.geom_type == "MultiPolygon"
    lon = shapely.get_coordinates(found.area)[:, 0]
    assert lon.min() >= -180
    assert lon.max() <= 180
    geod = pyproj.Geod(ellps="WGS84")
    area = sum(abs(geod.geometry_area_perimeter(part)[0]) for part in found.area.geoms)
    assert area == pytest.approx(200 * 400 * 100**2, rel=0.002)


def test_no_place_and_no_data_have_none(write):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        nowhere = write(np.ones((20, 20), bool))
    assert outline(nowhere) is None
    transform = Affine(5, 0, 5e5, 0, -5, 5e6)
    assert outline(write(np.zeros((20, 20), bool), crs=UTM, transform=transform)) is None


def test_geographic_pixels_are_measured_on_the_ellipsoid(write):
    transform = Affine(1e-4, 0, 15, 0, -1e-4, 60)
    found = outline(write(np.ones((100, 100), bool), crs="EPSG:4326", transform=transform))
    lon, lat = AffineModel(transform, "EPSG:4326").localize([50, 51, 50], [50, 50, 51])
    geod = pyproj.Geod(ellps="WGS84")
    east = geod.inv(lon[0], lat[0], lon[1], lat[1])[2]
    south = geod.inv(lon[0], lat[0], lon[2], lat[2])[2]
    assert found.pixel == pytest.approx(np.sqrt(east * south), rel=1e-3)
