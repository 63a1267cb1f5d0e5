"""`da.l1bsr` gives the pixels, masks, places and tags that the command line writes."""

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from rasterio.rpc import RPC

import l1bsr_geo as lg
from l1bsr_geo.accessor import L1bsrAccessor
from l1bsr_geo.cli.main import main
from l1bsr_geo.errors import BadInputError, BadOptionError, OutputExistsError
from l1bsr_geo.pipelines.bands import orthorectify_bands, register
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.scenes import MapScene
from l1bsr_geo.simulation.skysat_collect import write_skysat_collect

CRS = "EPSG:32631"
pytestmark = [
    pytest.mark.filterwarnings("ignore:no DEM"),
    # rasterio and rioxarray multiply affine transforms the old way
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:(Scales|Offsets) differ"),  # of rioxarray
]


def run_command(*words):
    """The command line, in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0


def compare(array, path):
    """Everything that a file tells."""
    values = array.compute()
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(values.values, file.read())
        np.testing.assert_array_equal(valid_of(values), file.dataset_mask() > 0)
        assert tuple(values.band.values) == file.descriptions
        if file.crs is not None:
            assert values.rio.crs == file.crs
            assert values.rio.transform() == file.transform
        tags = {k: v for k, v in file.tags().items() if k not in ("processed", "AREA_OR_POINT")}
    assert {name: str(values.attrs.get(name)) for name in tags} == tags


def valid_of(array):
    if "valid" in array.coords:
        return array.valid.values
    return (array != array.attrs["_FillValue"]).all("band").values


@pytest.fixture(scope="module")
def area(demo):
    west, south, *_ = demo.lonlat
    return west + 0.05, south + 0.05, west + 0.058, south + 0.058


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """A part of a made-up image on a map, four bands of which every pixel is known."""
    path = tmp_path_factory.mktemp("raster") / "four.tif"
    city = made_city((90, 70), seed=2)
    pixels = np.stack([city * gain for gain in (0.5, 0.7, 0.9, 1.0)]).astype(np.uint16)
    place = {"crs": CRS, "transform": Affine(10, 0, 500_000, 0, -10, 4_600_000)}
    shape = {"count": 4, "height": 90, "width": 70, "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(pixels)
        file.descriptions = ("B02", "B03", "B04", "B08")
    return path


@pytest.fixture(scope="module")
def collect(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collect")
    transform = Affine(0.5, 0, 500_000, 0, -0.5, 4_500_000)
    scene = MapScene(made_city((500, 500), seed=1)[None], transform, CRS, ("PAN",))
    return write_skysat_collect(folder, scene, frames=4, shape=(72, 88), pointing_error=0.0)


def test_a_detector_as_the_command_line_writes_it(demo, area, tmp_path):
    dn = xr.open_dataset(demo.product, engine="s2-l1b", detector=5, chunks={}).dn
    box = ",".join(map(str, area))
    where = ("--detector", 5, "--dem", demo.dem, "--aoi", box)
    methods = {"sr": "super_resolve", "register": "register_bands", "ortho": "orthorectify"}
    for command, method in methods.items():
        run_command(command, demo.product, tmp_path / f"{command}.tif", *where)
        result = getattr(dn.l1bsr, method)(dem=demo.dem, aoi=area)
        assert result.chunks is not None
        compare(result, tmp_path / f"{command}.tif")
    # in two steps, cut between them
    sharp = dn.l1bsr.super_resolve(dem=demo.dem, aoi=area, ortho=False).compute()
    assert not np.isnan(sharp.wavelength).any()
    compare(sharp.l1bsr.orthorectify(dem=demo.dem, aoi=area), tmp_path / "sr.tif")
    cut = sharp.isel(y=slice(180, -170), x=slice(170, -150)).sel(band=["B08", "B04"])
    drawn = cut.l1bsr.orthorectify(dem=demo.dem, aoi=area, crs=CRS, resolution=5).compute()
    whole = rioxarray.open_rasterio(tmp_path / "sr.tif").assign_coords(band=list(sharp.band.values))
    mine, theirs = xr.align(drawn, whole, join="inner")
    seen = valid_of(mine)
    assert 500 < seen.sum() < 0.9 * (whole[0] > 0).sum()
    # places are within 0.02 px of each other: a lookup is made for each image
    apart = np.abs(mine.values[:, seen].astype(int) - theirs.values[:, seen])
    assert apart.max() <= 1
    assert apart.mean() < 0.02


def test_a_raster_before_and_after_rioxarray(raster, tmp_path):
    array = rioxarray.open_rasterio(raster, chunks={"x": 32, "y": 32})
    assert isinstance(array.l1bsr, L1bsrAccessor)
    for pipeline, method, options in (
        (lg.super_resolve, "super_resolve", {}),
        (register, "register_bands", {}),
        (orthorectify_bands, "orthorectify", {"crs": "EPSG:3857", "resolution": 8.0}),
    ):
        path = tmp_path / f"{method}.tif"
        pipeline(raster, path, **options)
        compare(getattr(array.l1bsr, method)(**options), path)
    sharp = array.l1bsr.super_resolve()
    copy = sharp.l1bsr.to_cog(tmp_path / "copy.tif")
    compare(sharp, copy)
    with pytest.raises(OutputExistsError, match="exists already"):
        sharp.l1bsr.to_cog(copy)
    sharp.rio.to_raster(tmp_path / "rio.tif")
    with rasterio.open(tmp_path / "rio.tif") as file:
        np.testing.assert_array_equal(file.read(), sharp.values)
        assert file.crs.to_epsg() == 32631
    mercator = array.rio.reproject("EPSG:3857")
    again = mercator.l1bsr.super_resolve()
    assert again.rio.crs.to_epsg() == 3857
    assert again.rio.resolution()[0] == pytest.approx(mercator.rio.resolution()[0] / 2)
    assert sharp.isel(band=0).rio.reproject("EPSG:3857").rio.crs.to_epsg() == 3857


def test_values_are_those_of_the_array(raster, tmp_path):
    array = rioxarray.open_rasterio(raster)
    before = array.values.copy()
    plain = array.l1bsr.orthorectify(crs=CRS, resolution=10)
    np.testing.assert_array_equal(plain.values, array.values)
    changed = array.where(array.y > 4_599_500, 7).astype("uint16")
    changed.encoding = {}
    np.testing.assert_array_equal(
        changed.l1bsr.orthorectify(crs=CRS, resolution=10).values, changed.values
    )
    part = array.isel(y=slice(11, 60), x=slice(3, 50)).sel(band=[4, 2])
    drawn = part.l1bsr.orthorectify(crs=CRS, resolution=10)
    assert list(drawn.band.values) == ["B08", "B03"]
    assert drawn.rio.transform() == Affine(10, 0, 500_030, 0, -10, 4_599_890)
    np.testing.assert_array_equal(drawn.values, part.values)
    np.testing.assert_array_equal(array.values, before)  # nothing was changed in place


def test_a_burst_as_the_command_line_writes_it(collect, tmp_path):
    dn = xr.open_dataset(collect.folder, engine="skysat-l1a", chunks={}).dn
    path = tmp_path / "out.tif"
    run_command("sr", collect.folder, path)
    compare(dn.l1bsr.super_resolve(), path)
    run_command("sr", collect.folder, path, "--no-ortho", "--overwrite")
    sharp = dn.l1bsr.super_resolve(ortho=False)
    compare(sharp, path)
    with rasterio.open(path) as file:
        written = file.rpcs.to_dict()
    told = {k: v for k, v in sharp.l1bsr.rpcs.to_dict().items() if not k.startswith("err")}
    for name, value in told.items():
        np.testing.assert_allclose(value, written[name], rtol=1e-12)
    part = sharp.isel(x=slice(7, 50), y=slice(9, 40))
    assert part.l1bsr.rpcs.samp_off == pytest.approx(written["samp_off"] - 7)
    own = part.l1bsr.reframe()
    stored = rpcs_told(own)
    assert stored.line_off == pytest.approx(written["line_off"] - 9)
    part.l1bsr.to_cog(tmp_path / "part.tif")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):  # the RPC is no transform
        own.rio.to_raster(
            tmp_path / "rio.tif", **({} if hasattr(own.rio, "get_rpcs") else {"rpcs": stored})
        )
    for name in ("part.tif", "rio.tif"):
        with rasterio.open(tmp_path / name) as file:
            assert file.rpcs.samp_off == pytest.approx(written["samp_off"] - 7)
            np.testing.assert_array_equal(file.read(), part.values)
    # the same place, whichever frame it is told in
    a, b = (p.l1bsr.orthorectify(resolution=0.5).compute() for p in (part, own))
    assert a.rio.transform() == b.rio.transform()
    np.testing.assert_array_equal(a.values, b.values)
    assert dn.isel(time=1).l1bsr.super_resolve(ortho=False).l1bsr.rpcs is not None
    frame = dn.isel(time=1).l1bsr.orthorectify(resolution=1)
    west, south, east, north = frame.rio.bounds()
    assert 500_000 < west < east < 500_250
    assert 4_499_750 < south < north < 4_500_000


def rpcs_told(array):
    """As rioxarray >= 0.21 finds them, and as older versions keep them."""
    return RPC(**json.loads(array.spatial_ref.attrs["rpcs"]))


def test_noise_as_the_command_line_takes_it_off(collect, tmp_path):
    dn = xr.open_dataset(collect.folder, engine="skysat-l1a", frames=3).dn
    clean = dn.l1bsr.denoise(method="dncnn")
    assert clean.chunks is not None
    run_command("denoise", collect.folder, tmp_path / "clean", "--method", "dncnn", "--frames", 3)
    frames = [rasterio.open(path).read(1) for path in sorted((tmp_path / "clean").glob("*.tif"))]
    np.testing.assert_array_equal(clean.values, np.stack(frames))
    assert clean.frame.equals(dn.frame)
    assert clean.l1bsr.super_resolve(model="bicubic").rio.crs.to_epsg() == 32631


def test_a_cluster_of_ones_own(raster):
    from distributed import Client, LocalCluster

    array = rioxarray.open_rasterio(raster, chunks={"x": 40, "y": 50})
    here = array.l1bsr.super_resolve(tile=40).compute()
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        there = array.l1bsr.super_resolve(tile=40).compute()
        held = array.persist().l1bsr.super_resolve(tile=40).compute()
    np.testing.assert_array_equal(there.values, here.values)
    np.testing.assert_array_equal(held.values, here.values)


def test_mistakes_are_one_line(raster, collect):
    array = rioxarray.open_rasterio(raster)
    with pytest.raises(BadOptionError, match="output: it is of files"):
        array.l1bsr.super_resolve(output="x.tif")
    with pytest.raises(BadOptionError, match="colour: there is no such option"):
        array.l1bsr.register_bands(colour="red")
    with pytest.raises(BadOptionError, match="not a coordinate reference system"):
        array.l1bsr.orthorectify(crs="EPSG:0")
    with pytest.raises(BadInputError, match="not evenly spaced"):
        array.isel(x=[1, 2, 5, 9]).l1bsr.super_resolve()
    with pytest.raises(BadInputError, match=r"dimensions scene, band, y, x"):
        array.expand_dims("scene").l1bsr.orthorectify()
    frames = xr.open_dataset(collect.folder, engine="skysat-l1a", frames=2).dn
    with pytest.raises(BadInputError, match="without the coordinates x and y"):
        frames[:, 5:].drop_vars(["x", "y"]).l1bsr.super_resolve()
    with pytest.raises(BadInputError, match="is no video"):
        frames.transpose("y", "x", "time").l1bsr.denoise()
    with pytest.raises(BadInputError, match="have no bands to register"):
        frames.l1bsr.register_bands()
    shutil.rmtree(collect.folder)
    with pytest.raises(FileNotFoundError):
        frames.l1bsr.super_resolve()


def test_rio_is_told_all_commands(tmp_path):
    rio = Path(sysconfig.get_path("scripts"), "rio")

    def run(*words):
        return subprocess.run([rio, *words], capture_output=True, text=True, check=False)

    listed = run("l1bsr", "--help")
    assert listed.returncode == 0
    assert "Usage: rio l1bsr" in listed.stdout
    assert {"sr", "register", "ortho", "denoise", "batch", "models"} <= set(listed.stdout.split())
    missing = run("l1bsr", "info", str(tmp_path / "nothing"))
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: ")
    assert len(missing.stderr.splitlines()) == 1
    assert run("-v", "l1bsr", "sr", "--nonsense").returncode == 2
