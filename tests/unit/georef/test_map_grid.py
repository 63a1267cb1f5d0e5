import pytest
from affine import Affine

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.affine import AffineModel, lonlat_to_map
from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.map_grid import area_on_map, choose_map_grid, utm_zone

FLAT = ConstantElevation()


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (15.0, 45.0, 32633),
        (-70.5, -33.4, 32719),
        (-180.0, 1.0, 32601),
        (179.99, -1.0, 32760),
        (180.0, 1.0, 32601),
        (0.0, 0.0, 32631),
        (20.0, 85.0, 32661),
        (20.0, -81.0, 32761),
    ],
)
def test_utm_zone(lon, lat, epsg):
    assert utm_zone(lon, lat) == f"EPSG:{epsg}"


@pytest.mark.parametrize(
    ("pixel", "gsd", "expected"),
    [
        (4.97, 5.0, 5.0),  # nominal, where it fits
        (4.97, 10.0, 5.0),  # a gsd that was not updated is not believed
        (4.97, None, 5.0),
        (10.14, None, 10.0),
        (0.8634, None, 0.86),
        (0.8634, 0.8, 0.8),
        (123.4, None, 120.0),
    ],
)
def test_resolution(pixel, gsd, expected):
    source = GeoGrid((100, 100), AffineModel(Affine(pixel, 0, 5e5, 0, -pixel, 5e6), "EPSG:32633"))
    grid = choose_map_grid(source, gsd=gsd, elevation=FLAT)
    assert grid.model.transform.a == pytest.approx(expected, rel=1e-9)


def test_grids_of_neighbours_line_up():
    origins = (5e5 + 1.3, 5e6 - 2.2), (5e5 + 803.9, 5e6 + 77.7)
    grids = [
        choose_map_grid(
            GeoGrid((100, 100), AffineModel(Affine(4, 1, e, 1, -4, n), "EPSG:32633")),
            resolution=2.5,
            elevation=FLAT,
        )
        for e, n in origins
    ]
    for grid in grids:
        assert grid.model.transform.c % 2.5 == grid.model.transform.f % 2.5 == 0


def test_terrain_moves_the_outline(view):
    source = GeoGrid((300, 260), view)
    flat, high = (choose_map_grid(source, elevation=ConstantElevation(h)) for h in (0.0, 1000.0))
    moved = high.model.transform.c - flat.model.transform.c
    assert abs(moved - (0.25 * 1000 + 1)) <= 5


def test_areas_bend_with_the_map():
    """A parallel is a curve in UTM: corners alone would miss 100 m of it."""
    area = area_on_map((12.0, 45.0, 18.0, 46.0), "EPSG:32633")
    _, corners = lonlat_to_map("EPSG:32633").transform([12.0, 18.0], [45.0, 45.0])
    assert area.bounds[1] < min(corners) - 100


def test_a_crs_that_cannot_hold_the_image_is_refused():
    source = GeoGrid((100, 100), AffineModel(Affine(10, 0, 5e5, 0, -10, 5e6), "EPSG:32633"))
    for crs in ("EPSG:0", "utm", 7):
        with pytest.raises(BadOptionError, match="is unknown"):
            choose_map_grid(source, crs=crs, elevation=FLAT)
