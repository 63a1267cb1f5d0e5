"""End to end: a collect of known truth comes back sharper, where it was."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from rio_cogeo.cogeo import cog_validate

from l1bsr_geo.errors import L1bsrGeoError, L1bsrGeoWarning
from l1bsr_geo.pipelines.super_resolution import super_resolve
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.scenes import MapScene, relief, write_dem
from l1bsr_geo.simulation.skysat_collect import write_skysat_collect
from tests.synthetic.shifts import measure_shifts

CRS = "EPSG:32631"
pytestmark = pytest.mark.filterwarnings("ignore:no DEM")


def city(size=1400, pixel=0.5):
    """A made-up city on a map."""
    transform = Affine(pixel, 0, 500_000, 0, -pixel, 4_500_000)
    return MapScene(made_city((size, size), seed=1)[None], transform, CRS, ("PAN",))


@pytest.fixture(scope="module")
def collect(tmp_path_factory):
    """Without pointing errors, so that places on the ground can be checked."""
    folder = tmp_path_factory.mktemp("collect")
    return write_skysat_collect(folder, city(), frames=9, shape=(224, 288), pointing_error=0.0)


def compare(path, truth):
    """Shifts [px of the output] of blocks against the truth, and the error's rms [DN]."""
    with rasterio.open(path) as dataset:
        image, transform = dataset.read(1, masked=True).astype(float), dataset.transform
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    error = (image - truth.sample("PAN", *(transform @ (x, y)))).compressed()
    return measure_shifts(image.filled(-1), transform, truth, "PAN", nodata=-1), error.std()


@pytest.mark.parametrize(
    ("model", "scale", "aligned"),
    [("act", 2, "centre"), ("act", 3, "centre"), ("bicubic", 2, "corner")],
)
def test_lands_where_it_should(collect, tmp_path, model, scale, aligned):
    output = tmp_path / "out.tif"
    super_resolve(collect.folder, output, model=model, scale=scale)
    shifts, _ = compare(output, collect.truth)
    assert len(shifts) >= 6
    assert np.abs(shifts.mean(0)).max() < 0.05
    if model == "act":
        assert np.abs(shifts).max() < 0.05
    with rasterio.open(output) as dataset:
        tags = dataset.tags()
        assert dataset.crs.to_epsg() == 32631
    assert tags["aligned"] == aligned
    assert tags["frames"] == "9"
    assert tags["reference_frame"] == collect.names[4]


def test_more_frames_are_better(collect, tmp_path):
    errors = []
    for model, frames in (("bicubic", 9), ("shift-and-add", 9), ("act", 4), ("act", 9)):
        output = tmp_path / f"{model}{frames}.tif"
        super_resolve(collect.folder, output, model=model, frames=frames)
        errors.append(compare(output, collect.truth)[1])
    bicubic, added, few, many = errors
    assert many < 0.9 * few
    assert many < 0.7 * added
    assert added < bicubic


def test_on_relief_with_a_dem_and_exposures(tmp_path):
    scene = city()
    west, south, east, north = (2.99, 40.63, 3.02, 40.66)
    hills = relief((west, south, east, north), 5, 0.0, 120.0)
    write_dem(tmp_path / "dem.tif", hills)
    made = write_skysat_collect(
        tmp_path / "collect",
        scene,
        frames=9,
        shape=(224, 288),
        elevation=hills,
        pointing_error=0.0,
        exposures=(1.0, 0.5),
        geometry=("text",),
    )
    super_resolve(made.folder, tmp_path / "out.tif", model="act", dem=tmp_path / "dem.tif")
    shifts, _ = compare(tmp_path / "out.tif", made.truth)
    assert np.abs(shifts.mean(0)).max() < 0.05


def test_pleiades_scene_through_the_command(shared, cli, tmp_path):
    """A real image as ground truth: 15 frames at the SkySat noise in, an orthorectified COG out."""
    path = shared / "data/pleiades_marseille_triplet/img_01.tif"
    with rasterio.open(path) as dataset:
        pixels = dataset.read(1).astype(np.float32)
    scene = MapScene(
        (pixels * (1500 / pixels.mean()))[None].clip(0, 4000),
        Affine(0.5, 0, 690_000, 0, -0.5, 4_796_000),
        CRS,
        ("PAN",),
    )
    made = write_skysat_collect(tmp_path / "collect", scene, frames=15, shape=(224, 288))
    output = tmp_path / "out.tif"
    done = cli("sr", made.folder, output, "--sensor", "skysat", "--camera", "c2", "--frames", "15")
    assert done.returncode == 0, done.stderr
    valid, errors, warnings = cog_validate(output, strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(output) as dataset:
        assert dataset.crs.is_projected
        assert dataset.res[0] == pytest.approx(0.46, abs=0.02)
        assert int(dataset.tags()["frames"]) >= 12
        assert dataset.tags()["model"] == "dsa"


def test_sensor_geometry_keeps_rpcs(collect, tmp_path):
    """Any GIS can orthorectify: GDAL's RPC agrees with the place of the truth."""
    output = tmp_path / "out.tif"
    super_resolve(collect.folder, output, model="act", ortho=False)
    with rasterio.open(output) as dataset:
        assert dataset.shape == (448, 576)
        rpcs = dataset.rpcs
    with rasterio.transform.RPCTransformer(rpcs) as transformer:
        # centre aligned: fine sample 2 i, whose centre is at 2 i + 0.5, sits on coarse sample i
        rows, cols = transformer.rowcol(
            *collect.cameras[4].localize([100.5], [60.5], 0.0), zs=[0.0], op=float
        )
    assert (cols[0], rows[0]) == pytest.approx((200.5, 120.5), abs=0.01)


def test_plain_stack_without_geometry(cli, tmp_path):
    rng = np.random.default_rng(0)
    frame = made_city((96, 120), seed=3)
    stack = np.stack([frame + rng.normal(0, 10, frame.shape) for _ in range(6)])
    np.save(tmp_path / "stack.npy", stack.clip(0, 4095).astype(np.uint16))
    output = tmp_path / "out.tif"
    options = ["--sensor", "skysat", "--no-ortho", "--frames", "16", "--reference", "0"]
    done = cli("sr", tmp_path / "stack.npy", output, *options)
    assert done.returncode == 0, done.stderr
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        dataset = rasterio.open(output)
    with dataset:
        assert dataset.shape == (192, 240)
        assert dataset.tags()["frames"] == "6"


def test_a_frame_of_elsewhere_is_left_out(collect, tmp_path):
    """Said in a warning and in the tags, and nothing else changes."""
    folder = tmp_path / "collect"
    folder.mkdir()
    for file in collect.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    broken = folder / f"{collect.names[2]}.tif"
    with rasterio.open(broken, "r+") as dataset:
        other = made_city(dataset.shape, seed=99)
        dataset.write(other.astype(dataset.dtypes[0]), 1)
    with pytest.warns(L1bsrGeoWarning, match=f"frame {collect.names[2]}.* is left out"):
        super_resolve(folder, tmp_path / "out.tif", model="act")
    shifts, _ = compare(tmp_path / "out.tif", collect.truth)
    assert np.abs(shifts).max() < 0.05
    with rasterio.open(tmp_path / "out.tif") as dataset:
        left_out = json.loads(dataset.tags()["frames_left_out"])
    assert [name.startswith(collect.names[2]) for name in left_out] == [True]


def test_simulate_then_super_resolve_with_layers(shared, cli, tmp_path):
    image = shared / "data/pleiades_marseille_triplet/img_02.tif"
    options = ["--pixel", "0.5", "--mean", "1500", "--frames", "6", "--geometry", "pinhole"]
    made = cli("simulate", "skysat", image, tmp_path / "collect", *options)
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "collect").glob("*.tif"))) == 6
    layers = tmp_path / "layers.tif"
    done = cli("sr", tmp_path / "collect", tmp_path / "out.tif", "--layers", layers)
    assert done.returncode == 0, done.stderr
    with rasterio.open(layers) as dataset, rasterio.open(tmp_path / "out.tif") as result:
        assert dataset.descriptions == ("frame-count", "noise-gain")
        assert dataset.transform == result.transform
        count, gain = dataset.read(masked=True)
        assert 1 <= count.min() < count.max() <= 6.001
        assert 0.3 < np.ma.median(gain) < 0.9
    again = cli("simulate", "skysat", image, tmp_path / "collect", *options)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    unplaced = cli("simulate", "skysat", image, tmp_path / "other")
    assert unplaced.returncode == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reference": "last"}, "reference"),
        ({"reference": 40}, "40"),
        ({"camera": "c1"}, "c1"),
        ({"frames": 0}, "frames"),
        ({"model": "geometric"}, "geometric"),
        ({"model": "act", "scale": 4}, "scale 4"),
        ({"model": "highres-net"}, "highres-net"),
    ],
)
def test_mistakes_say_what_to_do(collect, tmp_path, monkeypatch, options, says):
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(L1bsrGeoError, match=says):
        super_resolve(collect.folder, tmp_path / "out.tif", **options)
    assert not list(tmp_path.glob("*out*"))


def test_one_frame_only(collect, tmp_path):
    with pytest.warns(L1bsrGeoWarning, match="one frame"):
        super_resolve(collect.folder, tmp_path / "out.tif", frames=1)
    shifts, _ = compare(tmp_path / "out.tif", collect.truth)
    assert np.abs(shifts.mean(0)).max() < 0.05
