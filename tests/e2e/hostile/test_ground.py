"""Terrain, areas, and numbers on the command line."""

import json

import numpy as np
import pytest
from affine import Affine

from tests.synthetic import hostile
from tests.synthetic.confined import ortho


def write_dem(path, heights, **options):
    return hostile.write_raster(
        path,
        heights,
        **({"crs": "EPSG:4326", "transform": Affine(0.01, 0, 4, 0, -0.01, 46)} | options),
    )


FLAT = np.full((200, 200), 300, np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_heights_that_are_none(run, safe, place, value):
    """They are taken as sea, as voids are."""
    heights = FLAT.copy()
    heights[::2] = value
    run(*ortho(safe, place / "o.tif", "--dem", write_dem(place / "d.tif", heights))).done(
        place / "o.tif"
    )


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0, 0, 5, 0, 0, 45),
        Affine(np.nan, 0, 4, 0, -0.01, 46),
        Affine(1e300, 0, -1e300, 0, -1e300, 1e300),
        Affine(1e-12, 0, 4.5, 0, -1e-12, 44.82),
    ],
)
def test_dems_that_are_nowhere(run, safe, place, transform):
    dem = write_dem(place / "d.tif", FLAT, transform=transform)
    run(*ortho(safe, place / "o.tif", "--dem", dem)).refused("d.tif")


def test_broken_dem_tiles(run, process, safe, place):
    folder = place / "dem"
    folder.mkdir()
    write_dem(folder / "a.tif", FLAT)
    (folder / "around").symlink_to(folder)
    (folder / "d.tif").mkdir()
    run(*ortho(safe, place / "o.tif", "--dem", folder)).done(place / "o.tif")
    (folder / "b.tif").write_bytes((folder / "a.tif").read_bytes()[:5000])
    process(*ortho(safe, place / "p.tif", "--dem", folder)).refused("b.tif")
    (folder / "b.tif").write_bytes(b"junk")
    run(*ortho(safe, place / "p.tif", "--dem", folder)).refused("b.tif")


def test_a_dem_tile_that_is_a_link_to_itself(run, safe, place):
    folder = place / "dem"
    folder.mkdir()
    write_dem(folder / "a.tif", FLAT)
    (folder / "c.tif").symlink_to("c.tif")
    run(*ortho(safe, place / "o.tif", "--dem", folder)).done(place / "o.tif")


def test_geoids_that_are_none(run, safe, place):
    dem = write_dem(place / "d.tif", FLAT)
    far = Affine(0.1, 0, 100, 0, -0.1, 10)
    (place / "text.gtx").write_text("hello")
    for geoid in (
        place / "text.gtx",
        write_dem(place / "nan.tif", FLAT * np.nan),
        write_dem(place / "high.tif", FLAT),
        write_dem(place / "far.tif", FLAT / 10, transform=far),
        write_dem(place / "point.tif", FLAT / 10, transform=Affine(0, 0, 5, 0, 0, 45)),
    ):
        run(*ortho(safe, place / "o.tif", "--dem", dem, "--geoid", geoid)).refused(geoid.name)


def test_areas_that_are_none(run, safe, place):
    area, output = place / "a.json", place / "o.tif"
    for text in (
        "", "null", "1", "[]", '{"type": 3}', '{"type": "GeometryCollection", "geometries": 3}',
        '{"type": "Polygon", "coordinates": "x"}', '{"type": "FeatureCollection", "features": [3]}',
        '{"type": "Polygon", "coordinates": [[[NaN,1],[2,3],[4,5],[NaN,1]]]}',
        '{"type": "Polygon", "coordinates": [[[1e999,1],[2,3],[4,5],[1e999,1]]]}',
        '{"type": "Point", "coordinates": [4.5, 44.8]}',
    ):  # fmt: skip
        area.write_text(text)
        run(*ortho(safe, output, "--aoi", area)).refused("a.json")
    box = [[4.5, 44.81], [4.6, 44.81], [4.6, 44.83], [4.5, 44.83], [4.5, 44.81]]
    sound = json.dumps({"type": "Polygon", "coordinates": [box]}).encode()
    for content in hostile.flipped(sound, 15):
        area.write_bytes(content)
        output.unlink(missing_ok=True)
        run(*ortho(safe, output, "--aoi", area)).harmless(output)


@pytest.mark.parametrize("area", ["[" * 100_000, "-inf,-90,inf,90"], ids=["deep", "infinite"])
def test_areas_without_end(run, safe, place, area):
    if not area[1:].startswith("inf"):
        (place / "a.json").write_text(area)
        area = place / "a.json"
    run(*ortho(safe, place / "o.tif", f"--aoi={area}")).refused(
        "aoi" if "inf" in str(area) else "json"
    )


def test_areas_of_many_corners(run, safe, place):
    turn = np.linspace(0, 2 * np.pi, 100_000)
    ring = np.stack([4.55 + 0.03 * np.cos(turn), 44.82 + 0.01 * np.sin(turn)], -1).tolist()
    ring[-1] = ring[0]
    area = place / "a.json"
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    run(*ortho(safe, place / "o.tif", "--aoi", area)).done(place / "o.tif")
    bow = [[4.5, 44.81], [4.6, 44.83], [4.6, 44.81], [4.5, 44.83], [4.5, 44.81]]
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [bow]}))
    run(*ortho(safe, place / "p.tif", "--aoi", area)).done(place / "p.tif")


def test_numbers_on_the_command_line(run, safe, place):
    for words in (
        ("--height", "nan"),
        ("--height", "1e308"),
        ("--height=-1e9",),
        ("--resolution", "nan"),
        ("--resolution", "inf"),
        ("--resolution", "1e-300"),
        ("--resolution", "0"),
        ("--aoi", "nan,nan,nan,nan"),
        ("--aoi", "0,0,0,0"),
        ("--crs", "EPSG:99999999"),
        ("--crs", "x" * 10_000),
        ("--detector", "99999999999999999999"),
        ("--bands", "B03," * 1000),
    ):
        run("ortho", safe, place / "o.tif", *words).refused()
