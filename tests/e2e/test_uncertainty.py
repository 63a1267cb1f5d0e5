"""A second file says how far the first can be trusted; on known truth it is right."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rio_cogeo.cogeo import cog_validate

from l1bsr_geo.errors import BadOptionError, L1bsrGeoWarning, OutputExistsError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bands import BandScene
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.ensemble import Ensemble
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.single_image import SingleImage
from l1bsr_geo.pipelines.bands import orthorectify_bands
from l1bsr_geo.pipelines.batch_jobs import read_jobs
from l1bsr_geo.pipelines.evaluating import evaluate
from l1bsr_geo.pipelines.super_resolution import super_resolve
from l1bsr_geo.pipelines.uncertainty import map_uncertainty
from l1bsr_geo.readers.inputs import read_input
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.scenes import MapScene, procedural_scene
from l1bsr_geo.simulation.skysat_collect import write_skysat_collect
from l1bsr_geo.tiling.plan import TilePlan

CRS = "EPSG:32631"
BANDS = ("B02", "B03", "B04", "B08")
UNCALIBRATED = pytest.mark.filterwarnings("ignore:the uncertainty of")
pytestmark = pytest.mark.filterwarnings("ignore:no DEM")


@pytest.fixture(scope="module")
def collect(tmp_path_factory):
    transform = Affine(0.5, 0, 500_000, 0, -0.5, 4_500_000)
    scene = MapScene(made_city((560, 560), seed=1)[None], transform, CRS, ("PAN",))
    folder = tmp_path_factory.mktemp("collect")
    return write_skysat_collect(folder, scene, frames=9, shape=(96, 112), pointing_error=0.0)


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """Four bands on a map, with a hole."""
    path = tmp_path_factory.mktemp("raster") / "bands.tif"
    pixels = procedural_scene((0, 0, 960, 800), CRS, 3).pixels[:, ::2, ::2]
    counts = np.rint(pixels + 1000).astype(np.uint16)
    counts[:, 20:28, 30:40] = 0
    profile = {"driver": "GTiff", "count": 4, "dtype": "uint16", "nodata": 0, "crs": CRS}
    height, width = counts.shape[1:]
    transform = Affine(10, 0, 500_000, 0, -10, 4_500_000)
    with rasterio.open(
        path, "w", height=height, width=width, transform=transform, **profile
    ) as dataset:
        dataset.write(counts)
        for number, name in enumerate(BANDS, 1):
            dataset.set_band_description(number, name)
    return path


def write(path, data):
    path.write_bytes(data)
    return path


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(masked=True), dataset.tags(), dataset.profile, dataset.descriptions


def test_errors_of_a_burst_are_as_large_as_is_said(collect, cli, tmp_path):
    """The truth is another simulator's than the one that calibrations were measured on."""
    output, trust = tmp_path / "out.tif", tmp_path / "u.tif"
    done = cli("sr", collect.folder, output, "--model", "dsa", "--uncertainty", trust)
    assert done.returncode == 0, done.stderr
    assert "not calibrated" not in done.stderr
    image, _, placed, _ = read(output)
    sigma, tags, profile, names = read(trust)
    assert cog_validate(trust, strict=True)[0]
    assert {k: profile[k] for k in ("transform", "crs", "width", "height", "count")} == {
        k: placed[k] for k in ("transform", "crs", "width", "height", "count")
    }
    assert profile["dtype"] == "float32"
    assert np.isnan(profile["nodata"])
    assert names == ("PAN",)
    assert tags["model"] == "dsa"
    assert tags["tile_size"] == "256"  # its own
    assert "8 restorations" in tags["uncertainty_method"]
    assert "1 sigma" in tags["uncertainty_calibration"]
    assert not (sigma.mask & ~image.mask).any()  # bilinear needs less around it than cubic
    rows, columns = np.mgrid[: image.shape[1], : image.shape[2]] + 0.5
    truth = collect.truth.sample("PAN", *(placed["transform"] @ (columns, rows)))
    known = ~image.mask[0]
    error, told = (image[0] - truth)[known].data, sigma[0][known].data
    assert 0.6 < (np.abs(error) < told).mean() < 0.85
    assert 0.88 < (np.abs(error) < 2 * told).mean() < 0.995
    assert np.corrcoef(np.abs(error), told)[0, 1] > 0.3
    assert np.sqrt(np.mean(told**2)) == pytest.approx(error.std(), rel=0.35)


@pytest.fixture
def network():
    """One's own, of the name of one that ships; it looks one pixel far."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(4, 16, 3, padding=1), torch.nn.PixelShuffle(2))
    return SingleImage(layers, ModelSpec("l1bsr", BANDS, scale=2, halo=1, gain=400))


def test_tiles_meet_and_holes_stay(raster, network, tmp_path):
    images = []
    for tile in (16, 400):
        path, trust = tmp_path / f"{tile}.tif", tmp_path / f"u{tile}.tif"
        with pytest.warns(L1bsrGeoWarning, match="not calibrated"):
            super_resolve(raster, path, model=network, tile=tile, uncertainty=trust)
        images.append(read(trust))
    (small, tags, _, names), (whole, *_) = images
    assert "turned" in tags["uncertainty_method"]
    assert tags["uncertainty_calibration"].startswith("not calibrated")
    assert names == BANDS
    np.testing.assert_array_equal(small.mask, whole.mask)
    assert small.mask.any()
    np.testing.assert_allclose(small.compressed(), whole.compressed(), rtol=0.01, atol=0.05)
    result = read(path)[0]
    np.testing.assert_array_equal(whole.mask, result.mask)
    assert whole.min() > 0


def test_what_is_not_restored_has_none(raster, tmp_path):
    with pytest.raises(BadOptionError, match="ortho makes no uncertainty; leave it out"):
        orthorectify_bands(raster, tmp_path / "o.tif", uncertainty=tmp_path / "u.tif")
    assert not list(tmp_path.iterdir())


@UNCALIBRATED
def test_a_run_is_taken_up_where_it_was(raster, network, tmp_path):
    """What was finished of it stays; what is of another run is not touched."""
    output, trust = tmp_path / "o.tif", tmp_path / "u.tif"
    options = {"model": network, "uncertainty": trust, "resume": True}
    super_resolve(raster, output, **options)
    with pytest.raises(BadOptionError, match="uncertainty of a result, not one"):
        evaluate(trust, source=raster)
    before, done = trust.stat().st_mtime_ns, output.read_bytes()
    output.unlink()
    super_resolve(raster, output, **options)
    assert trust.stat().st_mtime_ns == before
    assert read(output)[0].tobytes() == read(write(tmp_path / "o2.tif", done))[0].tobytes()
    output.unlink()
    with pytest.raises(OutputExistsError, match=r"u\.tif"):
        super_resolve(raster, output, tile=24, **options)
    assert not output.exists()
    trust.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"u\.tif"):
        super_resolve(raster, output, **options)
    assert trust.read_bytes() == b"mine"


@UNCALIBRATED
def test_an_offset_of_all_dn_is_no_uncertainty(raster, network, tmp_path):
    """Of processing baseline 04.00 on: DN - 1000 is what a network sees."""
    network.network[0].bias.data.zero_()
    stack = read_input(raster)
    shifted = replace(stack, add_offset=dict.fromkeys(stack.bands, -1000.0))
    model = Model.from_restorer(network)
    told = []
    for scene in (BandScene(stack), BandScene(shifted)):
        plan = TilePlan.for_model(model.spec, scene.grid.shape)
        image, _ = map_uncertainty(model, scene, plan)
        told.append(image.pixels.values)
    views = BandScene(shifted).read(Window(0, 0, *stack.shape[::-1])).pixels
    spread = model.spread(Ensemble("turned")).restore(views[None])
    inside = np.isfinite(told[1])
    assert inside[:, 20:30, 20:40].all()
    np.testing.assert_allclose(told[1][:, 20:30, 20:40], spread[0, :, 20:30, 20:40], rtol=1e-3)
    assert np.nanmean(told[0]) > 1.5 * np.nanmean(told[1])  # it multiplies what it sees


def test_what_cannot_be_told_is_refused_before_any_work(raster, collect, cli, tmp_path):
    output, trust = tmp_path / "o.tif", tmp_path / "u.tif"
    done = cli("sr", raster, output, "--uncertainty", trust)  # the spline, on a map
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "geometric gives the same of turned images" in done.stderr
    with pytest.raises(BadOptionError, match="bicubic gives the same with fewer frames"):
        super_resolve(collect.folder, output, model="bicubic", uncertainty=trust)
    with pytest.raises(BadOptionError, match="is another output"):
        super_resolve(raster, output, model="l1bsr", uncertainty=output)
    trust.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"u\.tif"):
        super_resolve(raster, output, model="l1bsr", uncertainty=trust)
    assert [p.name for p in tmp_path.iterdir()] == ["u.tif"]


def test_a_batch_knows_it(raster, tmp_path):
    jobs = tmp_path / "jobs.yaml"
    entry = {"input": str(raster), "output": "o.tif", "model": "l1bsr", "uncertainty": "u.tif"}
    jobs.write_text(json.dumps({"jobs": [entry]}))
    (job,) = read_jobs(jobs)
    assert [path.name for path in job.written] == ["o.tif", "u.tif"]
    twice = [entry, entry | {"output": "p.tif"}]
    jobs.write_text(json.dumps({"jobs": twice}))
    with pytest.raises(BadOptionError, match="the output of several jobs"):
        read_jobs(jobs)


def test_frames_without_geometry_and_too_few_of_them(tmp_path):
    rng = np.random.default_rng(0)
    frame = made_city((64, 80), seed=3)
    stack = np.stack([frame + rng.normal(0, 10, frame.shape) for _ in range(4)])
    np.save(tmp_path / "stack.npy", stack.clip(0, 4095).astype(np.uint16))
    options = {"sensor": "skysat", "ortho": False, "model": "dsa", "reference": 0}
    for frames, method in ((4, "3 restorations of the burst"), (2, "turned and mirrored")):
        trust = tmp_path / f"u{frames}.tif"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            warnings.simplefilter("ignore", L1bsrGeoWarning)  # no exposure times
            super_resolve(
                tmp_path / "stack.npy",
                tmp_path / f"o{frames}.tif",
                frames=frames,
                uncertainty=trust,
                **options,
            )
            sigma, tags, profile, _ = read(trust)
        assert method in tags["uncertainty_method"]
        assert (profile["height"], profile["width"]) == (128, 160)
        assert float(sigma.mean()) > 0
    assert tags["uncertainty_calibration"].startswith("not calibrated")  # of the turned one
