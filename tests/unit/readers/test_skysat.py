"""SkySat bursts: names, runs, geometry, exposures, and what happens to frames that are no good."""

import csv
import json
import pickle
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    GeometryWarning,
    L1bsrGeoWarning,
    MissingInputError,
)
from l1bsr_geo.geometry.ellipsoid import geodetic_to_ecef
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.geometry.pinhole import PinholeModel
from l1bsr_geo.geometry.rpc import RPCModel
from l1bsr_geo.images.bursts import BurstScene
from l1bsr_geo.images.flow import BurstFlow
from l1bsr_geo.images.pixels import Scene
from l1bsr_geo.readers.rpc import to_rasterio
from l1bsr_geo.readers.skysat import is_burst, list_bursts, read_burst
from l1bsr_geo.readers.skysat_frames import gps_to_utc, parse_outline

SHAPE = (40, 64)
FIRST = 1301717367.65046573  # [s] GPS, a real collect over Uluru
PERIOD = 0.0221
STEP = 4.0  # [px] rows from frame to frame
GSD = 0.8


def camera_at(lat: float, lon: float = 2.0, lat_offset: float = 1.0) -> PinholeModel:
    """A camera 500 km up, a degree off its target, north up to a turn."""
    eye, target = (
        geodetic_to_ecef(*(np.array(v) for v in place))
        for place in ((lon + 0.5, lat + lat_offset, 500e3), (lon, lat, 0.0))
    )
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    f = float(np.linalg.norm(target - eye)) / GSD
    intrinsic = np.array([[f, 0, SHAPE[1] / 2], [0, f, SHAPE[0] / 2], [0, 0, 1]])
    return PinholeModel(intrinsic @ np.hstack([rotation, -(rotation @ eye)[:, None]]))


@dataclass(frozen=True)
class Collect:
    folder: Path
    names: list[str]
    models: list[PinholeModel]
    pixels: list[np.ndarray]

    def path(self, frame: int) -> Path:
        return self.folder / f"{self.names[frame]}.tif"


def write_tif(path: Path, pixels: np.ndarray, **options) -> None:
    bands = pixels if pixels.ndim == 3 else pixels[None]
    with warnings.catch_warnings(action="ignore"), rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2], count=len(bands),
        dtype=bands.dtype, **options,
    ) as out:  # fmt: skip
        out.write(bands)


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    path = folder / "frame_index.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        if new:
            table.writeheader()
        table.writerows(rows)


def make_collect(
    folder: Path,
    count: int = 6,
    *,
    camera: str = "c2",
    geometry: str = "tags",
    exposures: bool = True,
    video: bool = False,
    first: float = FIRST,
) -> Collect:
    """Frames whose every pixel tells frame, row and column; a table; and the geometry asked for."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    names, models, images, rows = [], [], [], []
    for i in range(count):
        index = "" if video else f"_i{i:010d}"
        name = f"{first + i * PERIOD:.8f}_sc00108_{camera}_PAN{index}"
        model = camera_at(45.0 - i * STEP * GSD / 111_000)
        pixels = rng.integers(200, 3000, SHAPE).astype(np.uint16)
        rpc = RPCModel.fit(model, SHAPE)
        tags = {"rpcs": to_rasterio(rpc)} if geometry == "tags" else {}
        write_tif(folder / f"{name}.{'tiff' if video else 'tif'}", pixels, **tags)
        if geometry == "text":
            (folder / f"{name}_RPC.txt").write_text(rpc_text(rpc))
        if geometry == "pinhole":
            facts = {"P_projective": model.projection.tolist(), "height": 40, "width": 64}
            (folder / f"{name}_pinhole.json").write_text(json.dumps(facts))
        x, y = np.array([0.0, 64, 64, 0]), np.array([0.0, 0, 40, 40])
        corners = zip(*model.localize(x, y), strict=True)
        rows.append({
            "name": name,
            "gsd": str(GSD),
            "sat_az": "30.5",
            "sat_elev": "75",
            "bit_dpth": "16",
            "geom": "POLYGON((" + ", ".join(f"{a} {b}" for a, b in corners) + "))",
            "integration_time_ms": str(0.5 + 0.5 * (i % 2)) if exposures else "",
            "filename": f"{name}.tif",
        })  # fmt: skip
        names, models, images = [*names, name], [*models, model], [*images, pixels]
    write_table(folder, rows)
    return Collect(folder, names, models, images)


def rpc_text(model: RPCModel) -> str:
    lines = [f"{k}_OFF: {v!r} pixels" for k, v in model.offset.items()]
    lines += [f"{k}_SCALE: {v!r}" for k, v in model.scale.items()]
    for name in ("line_num", "line_den", "samp_num", "samp_den"):
        values = getattr(model, name)
        lines += [f"{name.upper()}_COEFF_{i}: {float(v)!r}" for i, v in enumerate(values, 1)]
    return "\n".join(lines)


def whole(burst, frame: int) -> np.ndarray:
    return burst.sources[frame].read(Window(0, 0, *burst.shape[::-1]))


def test_a_collect_is_read(tmp_path):
    collect = make_collect(tmp_path)
    burst = read_burst(tmp_path, frames=5)
    order = [2, 0, 1, 3, 4]
    assert burst.attrs["order"] == tuple(order)
    assert burst.attrs["frames"] == tuple(collect.names[i] for i in order)
    for at, i in enumerate(order):
        np.testing.assert_array_equal(whole(burst, at), collect.pixels[i])
    assert burst.exposures == (0.5, 0.5, 1.0, 1.0, 0.5)
    assert burst.times[1] == datetime(2021, 4, 6, 4, 9, 9, 650466, UTC)
    assert burst.band == "PAN"
    assert burst.nodata is None
    assert burst.saturated == 4095
    facts = {"level": "L1A", "platform": "sc00108", "camera": "c2", "gsd": GSD, "dropped": {},
             "geometry": "rpc", "satellite_elevation": 75.0}  # fmt: skip
    assert facts.items() <= burst.attrs.items()


@pytest.mark.parametrize("geometry", ["tags", "text", "pinhole"])
def test_every_geometry_says_the_same(tmp_path, geometry):
    collect = make_collect(tmp_path, 3, geometry=geometry)
    burst = read_burst(tmp_path, frames=3, reference="first")
    x, y, h = np.array([0.0, 13.5, 64]), np.array([40, 7.25, 0.0]), np.array([-100.0, 0, 2500])
    for grid, model in zip(burst.grids, collect.models, strict=True):
        lon, lat = model.localize(x, y, h)
        np.testing.assert_allclose(grid.project(lon, lat, h), (x, y), atol=1e-5)
        np.testing.assert_allclose(grid.localize(x, y, h), (lon, lat), atol=1e-11)


def test_geometry_can_be_chosen(tmp_path):
    make_collect(tmp_path, 2, geometry="pinhole")
    assert isinstance(read_burst(tmp_path, frames=2).grids[0].model, PinholeModel)
    assert read_burst(tmp_path, frames=2, geometry="none").grids[0].model is None
    with pytest.raises(MissingInputError, match="has no rpc geometry"):
        read_burst(tmp_path, frames=2, geometry="rpc")


def test_bursts_are_listed_and_split(tmp_path):
    collect = make_collect(tmp_path, 9)
    make_collect(tmp_path, 4, camera="c3")
    collect.path(3).unlink()
    later = make_collect(tmp_path / "later", 3, first=FIRST + 20)
    bursts = list_bursts(tmp_path)
    assert [(b.camera, b.indices) for b in bursts] == [
        ("c2", (0, 1, 2)),
        ("c2", (4, 5, 6, 7, 8)),
        ("c3", (0, 1, 2, 3)),
    ]
    assert bursts[1].period == pytest.approx(PERIOD, rel=1e-3)
    with pytest.raises(BadOptionError, match=r"c2, sc00108 c3; choose one with --camera"):
        read_burst(tmp_path)
    assert read_burst(tmp_path, "c2", frames=3).attrs["frames"][1] == collect.names[0]
    assert read_burst(tmp_path, 2, frames=5).attrs["frames"][1] == collect.names[4]
    assert read_burst(tmp_path, "c2", 5, 3).attrs["frames"][1] == collect.names[5]
    assert (
        read_burst(tmp_path, start=collect.names[6], frames=2).attrs["frames"][1]
        == (collect.names[6])
    )
    assert is_burst(later.folder)
    with pytest.raises(BadOptionError, match=r"--start 3: no such frame .* 0 to 2; 4 to 8"):
        read_burst(tmp_path, "c2", 3)
    with pytest.raises(BadOptionError, match=r"--camera c1: .* holds c2, c3"):
        read_burst(tmp_path, "c1")


def test_a_pause_splits_a_video(tmp_path):
    make_collect(tmp_path, 4, video=True)
    make_collect(tmp_path, 3, video=True, first=FIRST + 5.5 * PERIOD)
    bursts = list_bursts(tmp_path)
    assert [b.indices for b in bursts] == [(0, 1, 2, 3), (0, 1, 2)]
    burst = read_burst(tmp_path / "frame_index.csv", frames=3, reference="first")
    assert burst.attrs["order"] == (0, 1, 2)


def test_scenes_of_one_detector(tmp_path, shared):
    text = next((shared / "data/rpc").glob("2019*_RPC.TXT")).read_text()
    for scene in (11, 12, 14):
        name = f"20191015_073816_ssc1d3_{scene:04d}_basic_l1a_panchromatic_dn"
        write_tif(tmp_path / f"{name}.tif", np.arange(2560, dtype=np.uint16).reshape(40, 64))
        (tmp_path / f"{name}_RPC.TXT").write_text(text)
        write_tif(tmp_path / f"{name}_udm.tif", np.zeros(SHAPE, np.uint8))
    assert [b.indices for b in list_bursts(tmp_path)] == [(11, 12), (14,)]
    with pytest.warns(L1bsrGeoWarning, match="no exposure time of 2 of 2"):
        burst = read_burst(tmp_path, "d3")
    assert burst.attrs["camera"] == "d3"
    lon, lat = burst.grids[0].localize(0.5, 0.5, 70.0)
    assert (float(lon), float(lat)) == pytest.approx((49.6488, 25.9343), abs=2e-3)


@pytest.mark.parametrize(
    ("reference", "order"),
    [("first", (0, 1, 2, 3)), ("middle", (2, 0, 1, 3)), (3, (3, 0, 1, 2)), ("1", (1, 0, 2, 3))],
)
def test_the_reference_comes_first(tmp_path, reference, order):
    make_collect(tmp_path, 4)
    assert read_burst(tmp_path, frames=4, reference=reference).attrs["order"] == order


@pytest.mark.parametrize("reference", ["last", 4, -1])
def test_a_reference_that_is_not_there(tmp_path, reference):
    make_collect(tmp_path, 4)
    with pytest.raises(BadOptionError, match=f"--reference {reference}"):
        read_burst(tmp_path, frames=4, reference=reference)


def test_bad_frames_are_dropped_and_listed(tmp_path):
    collect = make_collect(tmp_path, 7)
    collect.path(0).write_bytes(b"no image")
    collect.path(3).write_bytes(collect.path(3).read_bytes()[:3000])
    write_tif(collect.path(4), np.ones((20, 64), np.uint16) + np.arange(64, dtype=np.uint16))
    write_tif(collect.path(5), np.full(SHAPE, 7, np.uint16))
    with pytest.warns(L1bsrGeoWarning, match="4 of 7 frames are dropped, 3 stay"):
        burst = read_burst(tmp_path, frames=7)
    assert burst.attrs["order"] == (2, 1, 6)
    dropped = burst.attrs["dropped"]
    assert set(dropped) == {collect.names[i] for i in (0, 3, 4, 5)}
    assert "20 x 64 px uint16, most are 40 x 64 px" in dropped[collect.names[4]]
    assert "every pixel is 7" in dropped[collect.names[5]]
    with pytest.raises(BadInputError, match=r"--reference 3: the frame .* cannot be used"):
        read_burst(tmp_path, frames=7, reference=3)


def test_no_frame_left(tmp_path):
    collect = make_collect(tmp_path, 2)
    for frame in (0, 1):
        collect.path(frame).write_bytes(b"")
    with pytest.raises(BadInputError, match=r"none of the 2 frames can be used; .* is empty"):
        read_burst(tmp_path)


def test_frames_of_other_ground_are_dropped(tmp_path):
    collect = make_collect(tmp_path, 14)
    centre = collect.models[0].localize(32, 20)
    moved = [abs(float(model.project(*centre)[1]) - 20) for model in collect.models]
    assert 35 < moved[10] < 39.5 < moved[11]  # [px] of 40
    with pytest.warns(L1bsrGeoWarning, match="3 of 14 .*% of the ground of the reference"):
        burst = read_burst(tmp_path, frames=14, reference="first")
    assert set(burst.attrs["dropped"]) == set(collect.names[11:])


def test_outlines_serve_where_there_is_no_model(tmp_path):
    make_collect(tmp_path, 14, geometry="no")
    with pytest.warns(L1bsrGeoWarning, match="% of the ground of the reference"):
        burst = read_burst(tmp_path, frames=14, reference="first")
    assert len(burst) == 11
    assert burst.attrs["geometry"] == "none"
    with pytest.raises(BadInputError, match="--no-ortho"):
        burst.grids[0].localize(0, 0)


def test_one_frame_works(tmp_path):
    collect = make_collect(tmp_path, 3)
    with pytest.warns(L1bsrGeoWarning, match="one frame only"):
        burst = read_burst(collect.path(1))
    np.testing.assert_array_equal(whole(burst, 0), collect.pixels[1])
    assert burst.exposures == (1.0,)


def test_missing_exposures_are_assumed(tmp_path):
    collect = make_collect(tmp_path, 4, exposures=False, geometry="no")
    write_tif(collect.path(2), collect.pixels[2] // 2)
    with pytest.warns(L1bsrGeoWarning, match=r"no exposure time of 4 of 4 .* differ by a factor 2"):
        burst = read_burst(tmp_path, frames=4)
    assert burst.exposures == (1.0, 1.0, 1.0, 1.0)
    assert burst.attrs["exposures"] == "assumed equal"
    given = read_burst(tmp_path, frames=4, exposures=(1, 2, 3, 4))
    assert given.exposures == (3.0, 1.0, 2.0, 4.0)
    with pytest.raises(BadOptionError, match="2 exposures were given for 4 frames"):
        read_burst(tmp_path, frames=4, exposures=(1, 2))


def test_a_damaged_geometry_is_said(tmp_path):
    collect = make_collect(tmp_path, 2, geometry="pinhole")
    (tmp_path / f"{collect.names[0]}_pinhole.json").write_text("{")
    with pytest.warns(GeometryWarning, match="holds no pinhole camera"):
        burst = read_burst(tmp_path, frames=2)
    assert burst.grids[1].model is None
    assert burst.grids[0].model is not None


def test_a_geometry_that_leads_nowhere_is_said(tmp_path):
    collect = make_collect(tmp_path, 2, geometry="text")
    path = tmp_path / f"{collect.names[0]}_RPC.txt"
    text = path.read_text().replace("LINE_DEN_COEFF_1: 1.0", "LINE_DEN_COEFF_1: 1e300")
    path.write_text(text)
    with pytest.warns(GeometryWarning, match="leads nowhere: .*; the frame goes without"):
        burst = read_burst(tmp_path, frames=2)
    assert burst.grids[1].model is None


def test_stacks_without_geometry(tmp_path):
    frames = np.random.default_rng(0).integers(0, 4000, (5, *SHAPE)).astype(np.uint16)
    np.save(tmp_path / "stack.npy", frames)
    write_tif(tmp_path / "stack.tif", frames)
    (tmp_path / "npy").mkdir()
    (tmp_path / "tif").mkdir()
    for t, frame in enumerate(frames):
        np.save(tmp_path / "npy" / f"frame{t + 8}.npy", frame)  # frame8 ... frame12
        write_tif(tmp_path / "tif" / f"{t + 8}.tif", frame)
    for path in ("stack.npy", "stack.tif", "npy", "tif"):
        with pytest.warns(L1bsrGeoWarning, match="taken as equal"):
            burst = read_burst(tmp_path / path, frames=16, reference=0)
        assert len(burst) == 5
        assert burst.grids[0].model is None
        assert burst.saturated is None
        again = pickle.loads(pickle.dumps(burst))
        for t, frame in enumerate(frames):
            np.testing.assert_array_equal(whole(again, t), frame)
            part = again.sources[t].read(Window(3, 5, 20, 10))
            np.testing.assert_array_equal(part, frame[5:15, 3:23])


def test_pages_of_a_tiff(tmp_path):
    frames = np.random.default_rng(0).integers(0, 4000, (3, *SHAPE)).astype(np.uint16)
    path = tmp_path / "pages.tif"
    for t, frame in enumerate(frames):
        write_tif(path, frame, **({"APPEND_SUBDATASET": "YES"} if t else {}))
    burst = read_burst(path, reference=0, exposures=(1, 1, 1))
    assert [whole(burst, t)[0, 0] for t in range(3)] == list(frames[:, 0, 0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 3, 4, 5), np.uint16), r"shape \(2, 3, 4, 5\)"),
        (np.array([{}], object), "cannot be read as a numpy array"),
        (np.zeros((2, 3, 4), complex), "holds complex128"),
        (np.full((2, 3, 4), np.nan), "no pixel is a finite number"),
    ],
)
def test_arrays_that_are_no_stack(tmp_path, content, message):
    np.save(tmp_path / "stack.npy", content)
    with pytest.raises(BadInputError, match=message):
        read_burst(tmp_path / "stack.npy")


def test_a_truncated_array(tmp_path):
    path = tmp_path / "stack.npy"
    np.save(path, np.ones((4, *SHAPE)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInputError, match="cannot be read as a numpy array"):
        read_burst(path)


def test_nothing_there(tmp_path):
    with pytest.raises(MissingInputError, match="is not there"):
        read_burst(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match="holds no frames"):
        read_burst(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BadInputError, match="is no burst"):
        read_burst(tmp_path / "notes.txt")
    assert not is_burst(tmp_path)


@pytest.mark.parametrize(
    ("text", "area"),
    [
        ("POLYGON ((2 45, 3 45, 3 44, 2 44, 2 45))", 1),
        ("POLYGON((2 45,3 45,3 44,2 44))", 1),
        ("POLYGON Z ((2 45 0, 3 45 0, 3 44 0, 2 44 0, 2 45 0))", 1),
        ("", None),
        ("POLYGON EMPTY", None),
        ("POLYGON ((2 45, 3 45", None),
    ],
)
def test_outlines_of_all_ages(text, area):
    outline = parse_outline(text)
    assert area == (None if outline is None else pytest.approx(outline.area))


def test_gps_time():
    assert gps_to_utc(FIRST).isoformat(timespec="microseconds") == (
        "2021-04-06T04:09:09.650466+00:00"
    )
    # around the leap second of the end of 2016
    assert gps_to_utc(1167264016) == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert gps_to_utc(1167264018) == datetime(2017, 1, 1, tzinfo=UTC)


def test_a_scene_reads_frames_in_their_place(tmp_path):
    collect = make_collect(tmp_path, 3)
    burst = read_burst(tmp_path, frames=3, reference="first")
    flow = BurstFlow(
        offsets=np.array([[0, 0], [2, -3], [50, 0]]),
        affine=np.array([np.zeros((2, 3)), [[0, 0, 0.25], [0, 0, -0.5]], np.full((2, 3), np.nan)]),
        centre=(32.0, 20.0),
        rejected={2: "blurred"},
    )
    views = BurstScene(burst, flow).read(Window(4, 0, 60, 10))
    assert views.pixels.shape == (3, 1, 10, 60)
    np.testing.assert_array_equal(views.pixels[0, 0], collect.pixels[0][:10, 4:64])
    np.testing.assert_array_equal(views.pixels[1, 0, 3:, :58], collect.pixels[1][:7, 6:64])
    assert views.valid[1, 0, 3:, :58].all()
    assert views.valid[1].sum() == 7 * 58
    assert not views.valid[2].any()
    np.testing.assert_allclose(views.flow[1, 0, :, 5, 5], (0.25, -0.5))
    np.testing.assert_array_equal(views.exposures, np.float32([0.5, 1.0, 0.5]))
    scene = BurstScene(burst.select(flow.kept), flow.select(flow.kept))
    assert isinstance(scene, Scene)
    assert scene.burst.attrs["frames"] == (collect.names[0], collect.names[1])
    np.testing.assert_array_equal(scene.read(Window(4, 0, 60, 10)).pixels[:2], views.pixels[:2])
    plain = BurstScene(burst).read(Window(0, 0, 5, 5))
    assert plain.flow is None
    np.testing.assert_array_equal(plain.pixels[2, 0], collect.pixels[2][:5, :5])
