from datetime import UTC, datetime

import numpy as np
import pytest

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.sentinel2 import (
    EarthOrientation,
    celestial_to_terrestrial,
    rotation_of,
)
from l1bsr_geo.readers.sentinel2_instrument import parse_datastrip_geometry
from l1bsr_geo.simulation.overpass import LINE_PERIOD, Overpass

TEN_METRE = ("B02", "B03", "B04", "B08")


def metres(lon0, lat0, lon1, lat1):
    return np.hypot((lon1 - lon0) * np.cos(np.radians(lat0)), lat1 - lat0) * 111_320


@pytest.mark.parametrize("platform", ["S2A", "S2B", "S2C"])
@pytest.mark.parametrize("place", [(5.0, 45.0), (-70.0, -33.0), (179.99, 66.0)])
def test_bands_of_a_detector_see_the_same_ground_within_ten_lines(platform, place):
    overpass = Overpass(*place, platform=platform, detectors=(1, 6, 12))
    for detector in overpass.detectors:
        lon, lat = overpass.model(detector, "B03").localize(1276, 2304)
        for band in TEN_METRE:
            x, y = overpass.model(detector, band).project(lon, lat)
            assert abs(x - 1276) < 12
            assert abs(y - 2304) < 12


def test_neighbouring_detectors_overlap_as_in_real_products():
    overpass = Overpass(5.0, 45.0, detectors=(5, 6))
    for band in TEN_METRE:
        x, y = overpass.model(6, band).project(*overpass.model(5, band).localize(2552, 2000))
        assert 115 < x < 180  # real: 123 to 170, by band and pair
        assert abs(y - 2000) < 25


def test_pixels_have_the_size_of_real_ones():
    model = Overpass(5.0, 45.0).model(5, "B03")
    lon, lat = model.localize([1276, 1277, 1276], [2304, 2304, 2305])
    assert metres(lon[0], lat[0], lon[1], lat[1]) == pytest.approx(9.95, abs=0.15)
    assert metres(lon[0], lat[0], lon[2], lat[2]) == pytest.approx(10.49, abs=0.15)


def test_the_strip_passes_over_the_place():
    model = Overpass(5.0, 45.0).model(6, "B04")
    lon, lat = model.localize(2552, 2304)
    assert metres(5.0, 45.0, lon, lat) < 2000  # half the overlap, and the gap along track


def test_the_wobble_is_as_large_as_asked():
    still, moving = (Overpass(5.0, 45.0, wobble=w).model(5, "B03") for w in (0.0, 7.0))
    y = np.linspace(0, 4608, 200)
    apart = metres(*still.localize(1276, y), *moving.localize(1276, y))
    assert 4 < apart.max() < 10


def test_sun_stands_where_the_almanac_says():
    # Greenwich, 2024-06-20 20:51 UTC: the solstice; the Sun is over the tropic of Cancer
    overpass = Overpass(0.0, 51.5)
    sun = overpass.sun_direction(datetime(2024, 6, 20, 20, 51, tzinfo=UTC))
    assert np.degrees(np.arcsin(sun[2])) == pytest.approx(23.44, abs=0.02)
    # equation of time that day: -1 min 51 s
    noon = 12 + (1 + 51 / 60) / 60
    assert np.degrees(np.arctan2(sun[1], sun[0])) == pytest.approx(-15 * (20.85 - noon), abs=0.1)


def test_line_times_step_by_the_line_period():
    overpass = Overpass(5.0, 45.0)
    times = [overpass.line_time(5, "B04", line) for line in (0, 1000)]
    assert (times[1] - times[0]).total_seconds() == pytest.approx(1000 * LINE_PERIOD, abs=1e-6)


@pytest.mark.parametrize("lines", [600, 650])
def test_granules_too_short_for_their_names_are_refused(lines):
    with pytest.raises(BadOptionError, match="granule_lines"):
        Overpass(5.0, 45.0, granule_lines=lines)


def test_the_attitude_law_is_that_of_the_real_satellite(shared):
    safe = shared / "data/sen2vm_tds1/L1B_SAFE"
    (xml,) = safe.glob("DATASTRIP/*/*.xml")
    real = parse_datastrip_geometry(xml.read_bytes(), xml.name)
    k = len(real.orbit_time) // 2
    t, p, v = real.orbit_time[k : k + 1], real.orbit_position[k], real.orbit_velocity[k]
    nearest = int(np.argmin(np.abs(real.attitude_time - t)))
    satellite = celestial_to_terrestrial(t, real.earth)[0] @ rotation_of(real.attitude[nearest])
    z = -p / np.linalg.norm(p)
    y = np.cross(z, v) / np.linalg.norm(np.cross(z, v))
    steered = np.column_stack([np.cross(y, z), y, z])
    turn = steered.T @ satellite
    assert np.degrees(np.abs(turn - np.eye(3)).max()) < 0.02
    made = Overpass(5.0, 45.0, wobble=0.0)
    assert isinstance(made.earth, EarthOrientation)
    t, q = made.attitude
    ours = celestial_to_terrestrial(t[:1], made.earth)[0] @ rotation_of(q[0])
    p = made.orbit[1][0]
    assert ours[:, 2] @ (-p / np.linalg.norm(p)) == pytest.approx(1.0, abs=1e-9)
