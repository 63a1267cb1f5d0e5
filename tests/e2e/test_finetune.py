"""End to end: a burst adapts a network, and the command that restores it takes what was learnt."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.models.checkpoint import read_checkpoint, read_facts
from l1bsr_geo.models.dsa import DSA
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.pipelines.finetune import finetune
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.overpass import Overpass
from l1bsr_geo.simulation.rendering import map_bounds
from l1bsr_geo.simulation.scenes import TEN_METRE_BANDS, MapScene, procedural_scene
from l1bsr_geo.simulation.sentinel2_product import write_l1b_product
from l1bsr_geo.simulation.skysat_collect import write_skysat_collect
from l1bsr_geo.training.checkpoints import write_weights
from tests.synthetic.weights import write_tiny_weights

pytestmark = pytest.mark.filterwarnings("ignore:no DEM")

NETWORK = {
    "base": "average",
    "contrast": 10.0,
    "decoder_blocks": 1,
    "encoder_blocks": 1,
    "estimates_flow": False,
    "width": 8,
}


def city():
    transform = Affine(0.5, 0, 500_000, 0, -0.5, 4_500_000)
    return MapScene(made_city((1000, 1000), seed=1)[None], transform, "EPSG:32631", ("PAN",))


@pytest.fixture(scope="module")
def collect(tmp_path_factory):
    return write_skysat_collect(
        tmp_path_factory.mktemp("collect"), city(), frames=8, shape=(128, 160), pointing_error=0.0
    )


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """The same at two exposure times."""
    return write_skysat_collect(
        tmp_path_factory.mktemp("steps"), city(), frames=6, shape=(112, 128), exposures=(1, 0.5)
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A network that gives a smoothed shift-and-add, which leaves much to be learnt."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("start") / "dsa.safetensors"
    recipe = {"method": "dsa", "objective": {"supervised": True, "border": 6}}
    facts = {
        "model": "dsa",
        "scale": "2",
        "network": json.dumps(NETWORK),
        "recipe": json.dumps(recipe),
        "licence": "Apache-2.0",
        "score": "40",
    }
    write_weights(path, DSA(**NETWORK), facts)
    return path


def error_of(path, truth):
    """Rms against the truth [DN]."""
    with rasterio.open(path) as dataset:
        image, transform = dataset.read(1, masked=True).astype(float), dataset.transform
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return (image - truth.sample("PAN", *(transform @ (x, y)))).compressed().std()


def test_finetune_then_super_resolve(cli, collect, start, tmp_path):
    weights = tmp_path / "adapted.safetensors"
    done = cli(
        "finetune", collect.folder, "--out", weights, "--weights", start, "--iterations", "40"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dsa adapted, as of iteration ")
    facts, before = read_facts(weights), read_facts(start)
    kept = ("model", "scale", "network", "licence", "recipe")
    assert all(facts[name] == before[name] for name in kept)
    assert facts["start_sha256"] == hash_file(start)
    assert facts["adapted_to"] == f"{collect.folder.name}, 8 frames around {collect.names[4]}"
    assert facts["adapted"] == "yes"
    assert 0 < int(facts["adapted_iterations"]) <= 40
    assert float(facts["adapted_gain"]) > 0
    assert "score" not in facts
    errors = []
    for used in (start, weights):
        output = tmp_path / f"{used.stem}.tif"
        done = cli("sr", collect.folder, output, "--weights", used)
        assert done.returncode == 0, done.stderr
        errors.append(error_of(output, collect.truth))
        with rasterio.open(output) as dataset:
            assert dataset.tags()["weights_sha256"] == hash_file(used)
    assert errors[1] < errors[0]


def test_what_gains_nothing_is_not_kept(collect, start, tmp_path):
    """No training does not, and the start comes back as it was."""
    camera = collect.cameras[4]
    west, north = (float(v) for v in camera.localize(30.0, 20.0, 0.0))
    east, south = (float(v) for v in camera.localize(130.0, 110.0, 0.0))
    area = (min(west, east), min(north, south), max(west, east), max(north, south))
    done = finetune(
        collect.folder,
        tmp_path / "same.safetensors",
        weights=start,
        minutes=0,
        device="cpu",
        aoi=area,
    )
    assert done.model == "dsa"
    assert not done.adaptation.kept
    assert done.adaptation.ended == "minutes"
    expected, found = read_checkpoint(start), read_checkpoint(done.weights)
    assert all(torch.equal(found[name], v) for name, v in expected.items())
    facts = read_facts(done.weights)
    assert facts["adapted"] == "no: the start unchanged"
    assert facts["adapted_gain"] == facts["adapted_iterations"] == "0"
    assert facts["score"] == "40"
    assert "within" in facts["adapted_to"]


@pytest.mark.parametrize("without", [(), ("recipe",)])
def test_a_burst_of_several_exposures_adapts_hdr_dsp(steps, tmp_path, without):
    """Weights that say no recipe are taken for the published ones, which sharpen."""
    start = write_tiny_weights(tmp_path / "start.safetensors", "hdr-dsp", without=without)
    done = finetune(
        steps.folder, tmp_path / "out.safetensors", weights=start, iterations=20, device="cpu"
    )
    assert done.model == "hdr-dsp"
    assert done.adaptation.kept
    assert done.adaptation.gain.mean > 0


OVERPASS = Overpass(lon=5.02, lat=44.75, detectors=(5, 6), granules=1, granule_lines=642)
LINES = 320


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """Detectors 5 and 6 where both see the same ground."""
    models = {(d, b): OVERPASS.model(d, b) for d in (5, 6) for b in TEN_METRE_BANDS}
    lon, lat = models[5, "B03"].localize(2551.5, 0.5, 0.0)
    shift = int(np.rint(models[6, "B03"].project(lon, lat, 0.0)[1] - 0.5))
    top = max(0, -shift)
    windows = {5: Window(2390, top, 162, LINES), 6: Window(0, top + shift, 185, LINES)}
    views = [([models[d, b] for b in TEN_METRE_BANDS], windows[d]) for d in (5, 6)]
    bounds = np.array([map_bounds(*v, "EPSG:32631", (0.0,)) for v in views])
    scene = procedural_scene((*bounds.min(0)[:2], *bounds.max(0)[2:]), "EPSG:32631", 3)
    with TemporaryDirectory() as metadata:
        write_metadata(Path(metadata), OVERPASS)
        return write_l1b_product(
            tmp_path_factory.mktemp("product"), scene.seen_by(), models, metadata,
            window=windows, seed=1,
        )  # fmt: skip


def test_overlap_of_detectors_adapts_the_network_of_bands(product, tmp_path):
    start = write_tiny_weights(tmp_path / "l1bsr.safetensors", "l1bsr")
    done = finetune(
        product,
        tmp_path / "adapted.safetensors",
        weights=start,
        iterations=20,
        detector=5,
        device="cpu",
    )
    assert done.model == "l1bsr"
    assert done.adaptation.kept
    assert done.adaptation.gain.mean > 0
    facts = read_facts(done.weights)
    assert facts["adapted_to"] == f"{product.name}, detector 5"
    assert Model("l1bsr", weights=done.weights, device="cpu").weights_sha256 != hash_file(start)


def test_mistakes_end_with_code_2_and_one_line(cli, collect, start, tmp_path):
    out = tmp_path / "out.safetensors"
    out.touch()
    for options, says in (
        (("--weights", start), "out.safetensors: exists already"),
        (("--overwrite", "--model", "act"), "act is not trained: there is nothing to fine-tune"),
    ):
        done = cli("finetune", collect.folder, "--out", out, *options)
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert says in done.stderr
    assert out.stat().st_size == 0


def test_inputs_that_teach_nothing_are_refused(demo, collect, start, tmp_path):
    bands = write_tiny_weights(tmp_path / "l1bsr.safetensors", "l1bsr")

    def error(kind, says, source, **options):
        with pytest.raises(kind, match=says) as found:
            finetune(source, tmp_path / "out.safetensors", device="cpu", **options)
        assert "\n" not in str(found.value)
        assert not (tmp_path / "out.safetensors").exists()

    error(BadOptionError, "there is no model 'dsar'; there are", collect.folder, model="dsar")
    error(BadInputError, "has no overlap with a neighbouring", demo.product, weights=bands)
    error(BadOptionError, "l1bsr cannot be fine-tuned on .* a burst", collect.folder, weights=bands)
    error(BadOptionError, "csr cannot be fine-tuned on", demo.product, model="csr")
    error(BadInputError, "neither a burst nor an L1B product", demo.dem, weights=bands)
    error(MissingInputError, "is not there", tmp_path / "none", weights=bands)
    error(BadInputError, "3 frames can be used; 4 are needed", collect.folder, weights=start,
          frames=3)  # fmt: skip
    nowhere = (100.0, 10.0, 100.1, 10.1)
    error(BadOptionError, "does not touch", collect.folder, weights=start, aoi=nowhere)
