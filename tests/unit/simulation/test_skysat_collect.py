"""A simulated collect: what its files say, and what its pixels show, is the truth."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import shapely

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.affine import lonlat_to_map
from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.geometry.ellipsoid import ecef_to_geodetic
from l1bsr_geo.geometry.rpc import RPCModel
from l1bsr_geo.geometry.sentinel2 import rotation_of
from l1bsr_geo.readers.pinhole import read_pinhole
from l1bsr_geo.readers.rpc import read_rpc
from l1bsr_geo.readers.skysat import list_bursts, read_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.skysat_collect import (
    INTEGRATION_TIME,
    scene_on_map,
    seen_by_camera,
    view,
    write_skysat_collect,
)
from l1bsr_geo.simulation.skysat_pass import FRAME_SHAPE, SkySatPass, rotation_to_camera

SHAPE = (64, 80)
SCENE = scene_on_map(made_city((420, 420), seed=2))


@pytest.fixture(scope="module")
def collect(tmp_path_factory):
    return write_skysat_collect(
        tmp_path_factory.mktemp("collect"),
        SCENE,
        frames=5,
        shape=SHAPE,
        elevation=ConstantElevation(120.0),
        geometry=("tags", "text", "pinhole"),
        exposures=(1.0, 0.5, 2.0, 1.0, 0.5),
        seed=3,
    )


def pixels_of(collect, index):
    with rasterio.open(collect.folder / f"{collect.names[index]}.tif") as raster:
        return raster.read(1)


def test_geometry_of_the_files_is_the_stored_one(collect):
    y, x = np.mgrid[0 : SHAPE[0] + 1 : 8, 0 : SHAPE[1] + 1 : 8].astype(float)
    for name, stored in zip(collect.names, collect.stored, strict=True):
        told = [
            read_rpc(collect.folder / f"{name}_RPC.TXT"),
            read_pinhole(collect.folder / f"{name}_pinhole.json", SHAPE),
        ]
        for h in (-100.0, 0.0, 900.0, 4000.0):
            places = stored.localize(x, y, h)
            for model in told:
                assert np.abs(np.stack(model.project(*places, h)) - [x, y]).max() < 1e-4


def test_rpcs_of_whole_frames_fit_to_a_hundredth_pixel():
    flight = SkySatPass(5.37, 43.29, 0.0, frames=1, shape=FRAME_SHAPE, off_nadir=30.0)
    camera = flight.cameras[0]
    rpc = RPCModel.fit(camera, FRAME_SHAPE)
    rng = np.random.default_rng(0)
    x, y, h = rng.uniform([0, 0, -200], [2560, 1080, 6000], (500, 3)).T
    assert np.abs(np.stack(rpc.project(*camera.localize(x, y, h), h)) - [x, y]).max() < 0.01


def test_pinhole_factors_multiply_to_the_projection(collect):
    facts = json.loads((collect.folder / f"{collect.names[1]}_pinhole.json").read_text())
    camera, intrinsic, extrinsic = (
        np.array(facts[k]) for k in ("P_camera", "P_intrinsic", "P_extrinsic")
    )
    assert camera[0, 0] == pytest.approx(-553846.15, abs=0.1)
    assert camera[0, 2] == pytest.approx(SHAPE[1] / 2, abs=1e-3)
    product = camera @ (intrinsic @ extrinsic)[:3]
    assert np.allclose(product, facts["P_projective"], rtol=1e-9, atol=1e-2)


def test_stored_pointing_is_wrong_by_pixels(collect):
    middle = SHAPE[1] / 2, SHAPE[0] / 2
    errors = [
        np.hypot(*np.subtract(told.project(*true.localize(*middle)), middle))
        for true, told in zip(collect.cameras, collect.stored, strict=True)
    ]
    assert 0.5 < np.median(errors) < 12


def test_the_view_moves_over_the_ground_as_in_a_real_collect():
    flight = SkySatPass(5.37, 43.29, 0.0, frames=3, shape=FRAME_SHAPE, unsteady=0.0, twist=0.0)
    assert 0.85 < flight.gsd < 1.0
    centre = FRAME_SHAPE[1] / 2, FRAME_SHAPE[0] / 2
    places = [camera.localize(*centre) for camera in flight.cameras]
    _, y = flight.cameras[0].project(*places[1])
    assert y - centre[1] == pytest.approx(57, abs=1.5)
    lon, lat, h = ecef_to_geodetic(flight.cameras[1].centre)
    assert h == pytest.approx(500e3, abs=5e3)
    assert np.isfinite([lon, lat]).all()


def test_a_landmark_is_seen_where_the_camera_projects_it(collect):
    e, n = SCENE.transform @ (210.0, 205.0)
    y, x = np.mgrid[:420, :420] + 0.5
    blob = 100 + 3000 * np.exp(-((x - 210) ** 2 + (y - 205) ** 2) / (2 * 4.0**2))
    scene = replace(SCENE, pixels=blob[None].astype(np.float32))
    truth = seen_by_camera(scene, collect.gsd)
    lon, lat = lonlat_to_map(SCENE.crs).transform(e, n, direction="INVERSE")
    for camera in collect.cameras:
        image = view(truth, camera, SHAPE, ConstantElevation(120.0)) - 100
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
        centroid = (image * x).sum() / image.sum(), (image * y).sum() / image.sum()
        assert np.allclose(centroid, camera.project(lon, lat, 120.0), atol=0.002)


def test_light_noise_and_exposure_times(collect):
    burst = read_burst(collect.folder)
    order = burst.attrs["order"]
    told = [collect.exposures[k] * INTEGRATION_TIME for k in order]
    assert np.allclose(burst.exposures, told)
    wrong = np.divide(collect.true_exposures, collect.exposures) - 1
    assert 0 < np.abs(wrong).max() <= 0.02
    for k in range(5):
        clean = view(collect.truth, collect.cameras[k], SHAPE, ConstantElevation(120.0))
        clean = collect.true_exposures[k] * clean
        good = clean < 3900
        noise = (pixels_of(collect, k) - clean)[good]
        expected = np.sqrt(0.1187 * clean[good] + 12.05)
        assert np.std(noise / expected) == pytest.approx(1, abs=0.05)


def test_the_table_has_the_columns_of_a_real_one(collect):
    with (collect.folder / "frame_index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert len(rows[0]) == 23
    for row, stored in zip(rows, collect.stored, strict=True):
        position = [1e3 * float(row[f"{k}_sat_ecef_km"]) for k in "xyz"]
        assert np.allclose(position, stored.centre, atol=0.1)
        turn = rotation_of(np.array([float(row[f"q{k}_ecef"]) for k in "xyzw"]))
        assert np.allclose(turn.T, rotation_to_camera(stored, SHAPE), atol=1e-6)
        assert 70 < float(row["sat_elev"]) < 85
        assert 90 < float(row["sat_az"]) < 110
        assert row["datetime"].endswith("+00:00")
        outline = shapely.from_wkt(row["geom"])
        assert outline.contains(shapely.Point(*map(float, stored.localize(40, 32))))


def test_the_reader_finds_one_burst(collect):
    [entry] = list_bursts(collect.folder)
    assert (entry.satellite, entry.camera, len(entry.frames)) == ("sc00108", "c2", 5)
    assert entry.period == pytest.approx(0.0221, abs=1e-6)
    assert read_burst(collect.folder, geometry="pinhole").shape == SHAPE


def test_scenes_that_cannot_serve_say_why(tmp_path):
    with pytest.raises(BadInputError, match="does not cover all frames"):
        write_skysat_collect(tmp_path, SCENE, frames=5, shape=(256, 320))
    coarse = scene_on_map(made_city((420, 420)), pixel=2.0)
    with pytest.raises(BadInputError, match="pixels of 2 m"):
        write_skysat_collect(tmp_path / "new", coarse, frames=2, shape=SHAPE)
    assert not (tmp_path / "new").exists()
    with pytest.raises(BadInputError, match="one was expected"):
        seen_by_camera(replace(SCENE, bands=("B02", "B03")), 0.9)
    with pytest.raises(BadOptionError, match="off_nadir"):
        SkySatPass(5.0, 43.0, off_nadir=80.0)


def test_an_image_on_no_map_is_laid_on_one():
    scene = scene_on_map(np.arange(100.0 * 60).reshape(100, 60), 0.5, -71.0, -33.0)
    assert scene.crs == "EPSG:32719"
    west, south, east, north = scene.bounds
    assert (east - west, north - south) == (30, 50)
    lon, lat = lonlat_to_map(scene.crs).transform(
        (west + east) / 2, (south + north) / 2, direction="INVERSE"
    )
    assert (lon, lat) == pytest.approx((-71.0, -33.0), abs=1e-9)
    assert 0.02 * 3400 < scene.pixels.min() < scene.pixels.max() < 0.8 * 3400
