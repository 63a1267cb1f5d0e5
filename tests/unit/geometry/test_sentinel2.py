"""The instrument model against closed forms; the official grids are in readers/test_instrument."""

import erfa
import numpy as np
import pyproj
import pytest

from l1bsr_geo.geometry import sentinel2
from l1bsr_geo.geometry.msi_figures import (
    choose_version,
    directions_apart,
    spacecraft_models,
    viewing_directions,
)

ECEF = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)


def test_geodetic_conversions_agree_with_proj():
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 500), rng.uniform(-89.9, 89.9, 500)
    h = rng.uniform(-100, 9000, 500)
    ours = sentinel2.geodetic_to_ecef(lon, lat, h)
    np.testing.assert_allclose(ours, ECEF.transform(lon, lat, h), atol=1e-6)
    lon2, lat2, h2 = sentinel2.ecef_to_geodetic(ours)
    np.testing.assert_allclose(lon2, lon, atol=1e-10)
    np.testing.assert_allclose(lat2, lat, atol=1e-9)
    np.testing.assert_allclose(h2, h, atol=1e-4)


def test_quaternions_and_matrices_are_inverse_and_continuous():
    rng = np.random.default_rng(1)
    angle = np.linspace(0, 12, 400)  # twice around: the sign must not jump
    axis = np.array([0.6, -0.64, 0.48])
    q = np.column_stack([np.sin(angle / 2)[:, None] * axis, np.cos(angle / 2)])
    matrices = np.moveaxis(sentinel2.rotation_of(q), -1, 0)
    back = sentinel2.quaternion_of(matrices)
    assert np.all((back[1:] * back[:-1]).sum(1) > 0.99)
    np.testing.assert_allclose(
        np.moveaxis(sentinel2.rotation_of(back), -1, 0), matrices, atol=1e-12
    )
    random = rng.standard_normal((200, 4))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    matrices = np.moveaxis(sentinel2.rotation_of(random), -1, 0)
    again = np.moveaxis(sentinel2.rotation_of(sentinel2.quaternion_of(matrices)), -1, 0)
    np.testing.assert_allclose(again, matrices, atol=1e-12)
    for row, k in ((0, 1), (1, 2), (2, 0)):  # the active rotation of erfa's rotation vector
        vector = np.zeros(3)
        vector[row] = 0.3
        want = erfa.rv2m(vector).T
        q = np.r_[np.sin(0.15) * np.eye(3)[row], np.cos(0.15)]
        np.testing.assert_allclose(sentinel2.rotation_of(q), want, atol=1e-12, err_msg=str(k))


def test_earth_turns_at_its_rate():
    earth = sentinel2.EarthOrientation(18.0, -0.2, 0.2, 0.3)
    t = 1.28e9 + np.array([0.0, 86164.0905])  # one sidereal day
    first, second = sentinel2.celestial_to_terrestrial(t, earth)
    np.testing.assert_allclose(first, second, atol=2e-6)
    half = sentinel2.celestial_to_terrestrial(t[:1] + 43082.045, earth)[0]
    np.testing.assert_allclose((half @ first.T)[:2, :2], -np.eye(2), atol=2e-5)


@pytest.fixture(scope="module")
def nadir_model() -> sentinel2.Sentinel2Model:
    """A camera over the equator at longitude 0 flying north, at rest in ITRF but for its motion."""
    time = np.linspace(-5, 5, 101)
    radius = sentinel2.SEMI_MAJOR + 786e3
    rate = 7.5e3 / radius
    position = radius * np.column_stack([np.cos(rate * time), 0 * time, np.sin(rate * time)])
    velocity = 7.5e3 * np.column_stack([-np.sin(rate * time), 0 * time, np.cos(rate * time)])
    down = -position / radius
    ahead = velocity / 7.5e3
    across = np.cross(down, ahead)
    matrices = np.stack([ahead, across, down], -1)
    u = np.linspace(-1, 1, 2552)
    return sentinel2.Sentinel2Model(
        directions=sentinel2.ViewingDirections(0.0164 * u, 0.001 * u**2),
        columns=2552,
        first_line_time=-1.0,
        line_period=1.5e-3,
        z_scale=1.0,
        attitude_time=time,
        attitude=sentinel2.quaternion_of(matrices),
        orbit_time=time,
        orbit_position=position,
        orbit_velocity=velocity,
        epoch=0.0,
    )


def test_nadir_camera_sees_the_ground_below(nadir_model):
    lon, lat = nadir_model.localize(1276.0, 1.0 / 1.5e-3, 0.0)  # centre column, time zero
    assert abs(lon) < 1e-9
    # the along-track tangent of the centre is zero: straight down on the equator
    assert abs(lat) < 1e-6
    lon, _ = nadir_model.localize(0.5, 1.0 / 1.5e-3, 0.0)
    east = np.radians(lon) * sentinel2.SEMI_MAJOR
    # TAN_PSI_X -0.0164 looks along instrument +y (v_y = -tan_x) = down x ahead; flat earth to 0.1 %
    assert east == pytest.approx(0.0164 * 786e3 * np.cross([-1, 0, 0], [0, 0, 1])[1], rel=2e-3)


def test_height_moves_the_pixel_along_the_line_of_sight(nadir_model):
    low, _ = nadir_model.localize(0.5, 400.0, 0.0)
    high, _ = nadir_model.localize(0.5, 400.0, 1000.0)
    moved = np.radians(abs(high - low)) * sentinel2.SEMI_MAJOR
    assert moved == pytest.approx(0.0164 * 1000, rel=0.15)


def test_round_trip_inside_and_outside(nadir_model):
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-300, 2852, 2000), rng.uniform(-800, 2500, 2000)
    h = rng.uniform(-100, 4000, 2000)
    px, py = nadir_model.project(*nadir_model.localize(x, y, h), h)
    np.testing.assert_allclose(px, x, atol=1e-4)
    np.testing.assert_allclose(py, y, atol=1e-4)


def test_ray_past_the_earth_is_not_a_number(nadir_model):
    lon, lat = nadir_model.localize(1e6, 100.0)
    assert np.isnan(lon)
    assert np.isnan(lat)


def test_every_shipped_version_is_chosen_by_its_name():
    for platform in ("S2A", "S2B", "S2C"):
        for versions in (viewing_directions(platform, "B02"), spacecraft_models(platform)):
            for version in versions:
                assert choose_version(versions, {version.file, "other"}) == (version, True)
            newest, named = choose_version(versions, {"something else"})
            assert not named
            assert newest is versions[-1]


def test_versions_of_s2a_differ_by_metres():
    """Source: 2 m on average and up to 6 m between the two S2A versions."""
    old, new = viewing_directions("S2A", "B04")
    apart = [
        directions_apart(old.directions(d, "APPLIED"), new.directions(d, "APPLIED"))
        for d in range(1, 13)
    ]
    assert 0.5 < np.mean([a[0] for a in apart]) < 4
    assert 2 < max(a[1] for a in apart) < 8
