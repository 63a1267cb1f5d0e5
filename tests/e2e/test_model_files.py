"""Models of one's own at the command line, in batches and on workers."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from distributed import Client, LocalCluster
from scipy.ndimage import gaussian_filter

from l1bsr_geo import super_resolve
from l1bsr_geo.errors import BadOptionError, L1bsrGeoError
from l1bsr_geo.models import loading
from l1bsr_geo.pipelines.batch import run_batch
from l1bsr_geo.pipelines.batch_jobs import read_jobs
from tests.synthetic.graph_files import write_onnx, write_spec

# dask leaves sockets to the garbage collector when processes are killed
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """Four bands on a map, in another order than networks take them."""
    path = tmp_path_factory.mktemp("rasters") / "four.tif"
    rng = np.random.default_rng(3)
    pixels = gaussian_filter(rng.normal(size=(4, 60, 76)), (0, 1.5, 1.5)) * 1500 + 2000
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    shape = {"count": 4, "height": 60, "width": 76, "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(pixels.astype(np.float32))
        file.descriptions = BANDS[::-1]
    return path


def read(path):
    with rasterio.open(path) as file:
        return file.read(), file.descriptions, file.tags()


def test_an_exported_network_restores_as_it_does_by_name(cli, raster, tmp_path):
    graph = tmp_path / "d.onnx"
    done = cli("models", "export", "dncnn-pan", "--onnx", graph)
    assert done.returncode == 0, done.stderr
    assert "differs from dncnn-pan by at most" in done.stderr
    super_resolve(raster, tmp_path / "file.tif", model=str(graph), tile=48)
    super_resolve(raster, tmp_path / "name.tif", model="dncnn-pan", tile=200)
    (got, _, tags), (expected, _, by_name) = (read(tmp_path / f"{n}.tif") for n in ("file", "name"))
    # tiles of 48 px against one: no seams, and the numbers of another library
    np.testing.assert_allclose(got, expected, atol=0.05)
    assert json.loads(tags["model_facts"])["weights_sha256"] == by_name["weights_sha256"]


@pytest.fixture
def spec(tmp_path):
    write_onnx(tmp_path / "net.onnx")
    return write_spec(tmp_path / "net.yaml")


def test_tiles_and_workers_make_what_one_pass_makes(raster, spec, tmp_path):
    super_resolve(raster, tmp_path / "whole.tif", model=str(spec), tile=500)
    super_resolve(raster, tmp_path / "tiles.tif", model=str(spec), tile=40, workers=1)
    (whole, names, _), (tiles, _, _) = (read(tmp_path / f"{n}.tif") for n in ("whole", "tiles"))
    assert names == BANDS  # the network's order
    assert np.abs(tiles - whole).max() < 0.5
    np.testing.assert_allclose(tiles, whole, atol=0.01)


def test_a_batch_takes_the_file_as_it_was(raster, spec, tmp_path):
    jobs = tmp_path / "jobs.yaml"
    lines = [f"  - {{input: {raster}, output: {n}.tif}}" for n in "ab"]
    jobs.write_text("\n".join(["defaults: {model: net.yaml, tile: 64}", "jobs:", *lines]))
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None)
        as cluster,
        Client(cluster),
    ):  # fmt: skip
        outcomes = list(run_batch(read_jobs(jobs)))
        assert [o.state for o in outcomes] == ["done", "done"], outcomes
        np.testing.assert_array_equal(*(read(tmp_path / f"{n}.tif")[0] for n in "ab"))
    planned = read_jobs(jobs, tmp_path / "later")
    graph = tmp_path / "net.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    loading._LOADED.clear()  # this process has it; others would not
    outcomes = list(run_batch(planned))
    assert [o.state for o in outcomes] == ["failed", "failed"]
    assert "changed since the model was made of it" in str(outcomes[0].error)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("model: other.onnx", "there is no such file"),
        ("model: net.onnx", "bands and gain are not told"),
        ("{model: net.yaml, scale: 2}", "scale: a model file has its own"),
        ("model: nix", "or a model file"),
    ],
)
def test_a_batch_refuses_models_before_it_begins(raster, spec, tmp_path, entry, words):
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(f"defaults: {{input: {raster}}}\njobs:\n  - {{output: a.tif}}\n")
    text = jobs.read_text().replace("defaults: {", f"defaults: {{{entry.strip('{}')}, ")
    jobs.write_text(text)
    with pytest.raises(BadOptionError, match=words):
        read_jobs(jobs)


def test_mistakes_are_told_before_the_work(cli, raster, spec, tmp_path):
    output = tmp_path / "out.tif"
    done = cli("sr", raster, output, "--model", tmp_path / "net.onnx")
    assert done.returncode == 2, done.stderr
    assert "bands and gain are not told" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for options, words in (
        ({"model": str(spec), "weights": spec}, "leave them out"),
        ({"model": str(spec), "scale": 2}, "leave them out"),
        ({"model": str(write_spec(tmp_path / "b.yaml", bands="[B02, B03, B04, B11]"))}, "B11"),
        ({"model": str(write_spec(tmp_path / "h.yaml", halo=1))}, "halo is 1"),
    ):
        with pytest.raises(L1bsrGeoError, match=words):
            super_resolve(raster, output, **options)
    assert not output.exists()
