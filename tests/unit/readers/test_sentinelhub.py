"""Against a server that speaks the service's calls, over real HTTP."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform_bounds

from l1bsr_geo.errors import BadOptionError, DownloadError, MissingInputError
from l1bsr_geo.readers.reference_chip import Day, choose_day, fetch_chip, group_days
from l1bsr_geo.readers.sentinelhub import CDSE, read_config
from tests.synthetic.sentinelhub_server import (
    CATALOG,
    CLIENT,
    PROCESS,
    SECRET,
    TOKEN,
    Failure,
    SentinelHubServer,
    make_item,
)

pytest.importorskip("sentinelhub")

CRS = "EPSG:32631"
AREA = shapely.box(5.00, 44.70, 5.02, 44.71)
EVERYWHERE = (4.0, 44.0, 6.0, 45.5)
WHEN = datetime(2024, 7, 14, 10, 46, tzinfo=UTC)


def ramp(band, e, n):
    """DN that tell where they are."""
    east, south = np.asarray(e) - 650_000, 4_960_000 - np.asarray(n)
    return 1000 + (east if band == "B03" else south) / 10


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The service, and a machine that is configured for it."""
    items = {
        "sentinel-2-l1c": [
            make_item("cloudy", "2024-07-16T10:50:31Z", 45.0, EVERYWHERE),
            make_item("part", "2024-07-12T10:50:31Z", 0.0, (5.0, 44.0, 5.005, 45.0)),
            make_item("other-part", "2024-07-01T10:50:31Z", 5.0, (4.0, 44.0, 5.01, 45.0)),
            make_item("its-rest", "2024-07-01T10:50:45Z", 5.0, (5.009, 44.0, 6.0, 45.0)),
            make_item("late", "2024-08-20T10:50:31Z", 0.0, EVERYWHERE),
        ],
        "sentinel-2-l2a": [],
    }
    for name in ("SH_PROFILE", "SH_CLIENT_ID", "SH_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with SentinelHubServer(ramp, CRS, items).listen() as server:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(server.write_config(tmp_path / "config")))
        monkeypatch.setenv("SH_CLIENT_ID", CLIENT)
        monkeypatch.setenv("SH_CLIENT_SECRET", SECRET)
        yield server


@pytest.fixture
def impatient(hub, tmp_path):
    """The same, with a time limit that tests can wait for."""
    hub.write_config(tmp_path / "config", download_timeout_seconds=0.5, max_download_attempts=6)


def fetch(tmp_path, area=AREA, when=WHEN) -> Path:
    return fetch_chip(area, when, CRS, folder=tmp_path / "references")


def test_nearest_clear_day_that_shows_all(hub, tmp_path):
    """Over pages of the catalog; two images of one day make one chip."""
    path = fetch(tmp_path)
    assert path.name.startswith("sentinel-2-l1c_2024-07-01_")
    assert hub.counts == {TOKEN: 1, CATALOG: 3, PROCESS: 1}
    with rasterio.open(path) as chip:
        assert (chip.crs.to_string(), chip.res, chip.nodata) == (CRS, (10, 10), 0)
        assert chip.descriptions == ("B03", "B04")
        assert chip.tags()["images"] == "other-part its-rest"
        bounds, pixels, transform = chip.bounds, chip.read(), chip.transform
    rows, cols = np.mgrid[: pixels.shape[1], : pixels.shape[2]] + 0.5
    e, n = transform @ (cols, rows)
    assert np.array_equal(pixels[0], np.rint(ramp("B03", e, n)))
    assert np.array_equal(pixels[1], np.rint(ramp("B04", e, n)))
    west, south, east, north = transform_bounds("EPSG:4326", CRS, *AREA.bounds)
    spare = np.array([west, south]) - bounds[:2], np.array(bounds[2:]) - [east, north]
    assert np.min(spare) > 600  # room around the outline
    data = hub.asked[PROCESS][0]["input"]["data"][0]
    assert data["dataFilter"]["timeRange"] == {
        "from": "2024-07-01T00:00:00Z",
        "to": "2024-07-01T23:59:59Z",
    }


def test_fetched_once(hub, tmp_path, monkeypatch):
    """Again, even without a network or credentials."""
    first = fetch(tmp_path)
    asked = hub.counts.copy()
    for name in ("SH_CLIENT_ID", "SH_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    assert fetch(tmp_path) == first
    assert hub.counts == asked
    assert list(first.parent.iterdir()) == [first]


def test_large_areas_in_parts(hub, tmp_path):
    """A slanted strip: parts that it does not touch are not fetched."""
    strip = shapely.Polygon([(5.0, 44.2), (5.03, 44.2), (5.45, 44.65), (5.42, 44.65)])
    path = fetch(tmp_path, strip)
    with rasterio.open(path) as chip:
        assert max(chip.shape) > 2500
        parts = -(-chip.height // 2500) * -(-chip.width // 2500)
        column, row = (int(v) for v in ~chip.transform @ (684_000, 4_936_000))
        assert chip.read(1, window=((row, row + 1), (column, column + 1))) == 1000 + 3400 + 0
    assert 1 < hub.counts[PROCESS] < parts
    assert all(body["output"]["width"] <= 2500 for body in hub.asked[PROCESS])


def test_other_collection_where_the_first_has_none(hub, tmp_path):
    hub.items["sentinel-2-l2a"] = hub.items.pop("sentinel-2-l1c")
    assert fetch(tmp_path).name.startswith("sentinel-2-l2a_2024-07-01_")


def test_no_image_says_what_there_is(hub, tmp_path):
    hub.items["sentinel-2-l1c"] = hub.items["sentinel-2-l1c"][:2]
    with pytest.raises(MissingInputError, match=r"1 of 2 days show the whole area.*45 % clouds"):
        fetch(tmp_path)


@pytest.mark.parametrize("address", [TOKEN, CATALOG, PROCESS])
@pytest.mark.usefixtures("impatient")
def test_goes_on_after_passing_trouble(hub, tmp_path, address):
    """A server that is down, silent or too busy for a moment."""
    hub.fail(address, Failure(503, b"down"), Failure(wait=0.7))
    if address != TOKEN:
        hub.fail(address, Failure(429, b"{}", {"Retry-After": "20"}))
    assert fetch(tmp_path).stat().st_size > 1000
    assert not hub.failures[address]


MESSAGE = json.dumps({"error": {"status": 400, "message": "Invalid bbox"}}).encode()


@pytest.mark.parametrize(
    ("address", "failure", "kind", "says"),
    [
        (TOKEN, Failure(500, b"<html>no</html>"), DownloadError, "500"),
        (TOKEN, Failure(429), DownloadError, "429"),
        (TOKEN, Failure(body=b"hello"), DownloadError, "not understood"),
        (CATALOG, Failure(403, b"{}"), BadOptionError, "refuses the credentials"),
        (CATALOG, Failure(429, b"{}", {"Retry-After": "5"}), DownloadError, "busy"),
        (CATALOG, Failure(body=b"{}"), DownloadError, "not understood"),
        (CATALOG, Failure(body=b'{"features": [{}], "context": {}}'), DownloadError, "an item"),
        (PROCESS, Failure(400, MESSAGE), DownloadError, "Invalid bbox"),
        (PROCESS, Failure(502), DownloadError, "502"),
        (PROCESS, Failure(body=b"<VRTDataset/>"), DownloadError, "no GeoTIFF"),
    ],
)
def test_lasting_trouble_is_one_line(hub, tmp_path, address, failure, kind, says):
    """Nothing half fetched stays."""
    hub.fail(address, *[failure] * 6)
    with pytest.raises(kind, match=says) as raised:
        fetch(tmp_path)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)
    assert not list(tmp_path.glob("references/*"))


@pytest.mark.parametrize("address", [TOKEN, PROCESS])
def test_silence_is_not_waited_for(hub, tmp_path, address):
    hub.write_config(tmp_path / "config", download_timeout_seconds=0.4, max_download_attempts=2)
    hub.fail(address, *[Failure(wait=0.6)] * 2)
    with pytest.raises(DownloadError, match="timed out"):
        fetch(tmp_path)


def test_wrong_secret(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("SH_CLIENT_SECRET", "another")
    with pytest.raises(BadOptionError, match=r"refuses the credentials \(401"):
        fetch(tmp_path)


def test_no_service_there(hub, tmp_path, monkeypatch):
    with SentinelHubServer(ramp, CRS, {}).listen() as gone:
        config = gone.write_config(tmp_path / "gone")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch(tmp_path)


def test_secrets_go_over_https_only(hub, tmp_path, monkeypatch):
    config = hub.write_config(tmp_path / "plain", sh_token_url="http://example.org/token")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    with pytest.raises(BadOptionError, match="https only"):
        fetch(tmp_path)


def test_credentials_and_profiles(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("SH_PROFILE", "SH_CLIENT_ID", "SH_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadOptionError, match="SH_CLIENT_ID and SH_CLIENT_SECRET"):
        read_config()
    monkeypatch.setenv("SH_CLIENT_ID", "me")
    monkeypatch.setenv("SH_CLIENT_SECRET", "mine")
    assert read_config().sh_base_url == "https://services.sentinel-hub.com"
    monkeypatch.setenv("SH_PROFILE", "cdse")
    config = read_config()
    assert {name: getattr(config, name) for name in CDSE} == CDSE
    assert config.sh_client_id == "me"
    monkeypatch.setenv("SH_PROFILE", "nobody")
    with pytest.raises(BadOptionError, match="no such profile"):
        read_config()


def test_same_day_under_its_own_clouds():
    days = [
        Day("c", date(2024, 7, 14), 70.0, 1.0, ()),
        Day("c", date(2024, 7, 13), 1.0, 1.0, ()),
        Day("c", date(2024, 7, 16), 0.0, 1.0, ()),
    ]
    assert choose_day(days, WHEN.date()) == days[0]
    assert choose_day(days[1:], WHEN.date()) == days[1]
    assert choose_day(days[:1], date(2024, 7, 15)) is None


def test_clouds_count_by_the_share_that_is_shown():
    items = [
        make_item("a", "2024-07-14T10:50:31Z", 0.0, (5.0, 44.0, 5.015, 45.0)),
        make_item("b", "2024-07-14T10:50:45Z", 80.0, (5.015, 44.0, 6.0, 45.0)),
    ]
    (day,) = group_days("c", items, AREA)
    assert day.covered == pytest.approx(1.0)
    assert day.cloud == pytest.approx(20.0, abs=0.1)
