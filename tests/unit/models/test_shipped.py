"""The weights that ship: each whole, told, made again by a recipe, and better than a spline."""

import json

import numpy as np
import pytest
import rasterio
import safetensors.torch
import yaml

from l1bsr_geo.errors import BadOptionError, L1bsrGeoWarning, WeightsError
from l1bsr_geo.models.cards import SECTIONS
from l1bsr_geo.models.checkpoint import SHIPPED, read_checkpoint, read_facts
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.models.shipped import HALF_ERROR, MOST_BYTES, default_model, made_views, ship
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.pipelines.super_resolution import super_resolve
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.recipe import read_recipe
from tests.synthetic.weights import gain_of_file, gain_over_spline

FILES = sorted(SHIPPED.glob("*.safetensors"))


def own(path):
    """Model and scale of a shipped file, as its name says."""
    name, _, scale = path.stem.rpartition("-x")
    return (name, int(scale)) if scale.isdecimal() and name else (path.stem, None)


def test_the_real_folder_holds_what_it_should():
    assert sum(path.stat().st_size for path in FILES) <= MOST_BYTES
    there = {path.name for path in SHIPPED.iterdir() if path.is_file()} - {"__init__.py"}
    needed = {f"{p.stem}.{end}" for p in FILES for end in ("safetensors", "md", "yaml")}
    assert needed <= there
    assert all(name.endswith(".yaml") for name in there - needed)  # of what is being trained


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_shipped_file_is_told_and_can_be_made_again(path):
    name, scale = own(path)
    facts, spec = read_facts(path), MODELS[name].make_for(path, scale).spec
    assert (facts["model"], facts["scale"]) == (name, str(spec.scale))
    assert facts["licence"] == "Apache-2.0"
    card = path.with_suffix(".md").read_text("utf-8")
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert hash_file(path) in card
    recipe = read_recipe(path.with_suffix(".yaml"))
    assert (recipe.model, recipe.method) == (name, facts["method"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_shipped_file_beats_a_spline(path):
    assert gain_of_file(path, *own(path)) > 0


def test_the_judge_knows_good_from_bad(tiny_weights):
    assert gain_over_spline(Model("act")) > 3
    assert gain_over_spline(Model("act", scale=3)) > 3
    assert gain_over_spline(Model("geometric")) == 0
    for name in ("dsa", "l1bsr"):
        assert gain_of_file(tiny_weights(name), name, None) < -0.3


@pytest.mark.parametrize("name", ["dsa", "csr"])
def test_made_views_move_as_their_flow_says(name):
    views, flow = (
        np.moveaxis(v, 2, 1) if name == "dsa" else v for v in made_views(MODELS[name].spec)
    )
    reference = 1 if name == "csr" else 0  # B03, or the first frame; frames became bands above
    assert not flow[0, 0, reference].any()
    model, inner = Model("geometric"), (slice(None), slice(16, -16), slice(16, -16))
    right, still, wrong = (model.restore(views, k * flow)[0][inner] for k in (1, 0, -1))
    for k in range(len(right)):
        if k != reference:
            likeness = [
                np.corrcoef(v[k].ravel(), v[reference].ravel())[0, 1] for v in (right, still, wrong)
            ]
            assert likeness[0] > 0.95
            assert likeness == sorted(likeness, reverse=True)


@pytest.mark.parametrize(("name", "scale", "stem"), [("dsa", 3, "dsa-x3"), ("l1bsr", 2, "l1bsr")])
def test_ship(shipped, tiny_weights, name, scale, stem):
    best = tiny_weights(name, scale)
    results = {"T = 5": {"PSNR [dB]": 45.0, "over ACT": 0.25}}
    path = ship(best, name, results, facts={"data": "A made-up city.", "limits": "Few frames."})
    assert path == shipped / f"{stem}.safetensors"
    assert sorted(p.name for p in shipped.iterdir()) == [
        f"{stem}.{end}" for end in ("md", "safetensors", "yaml")
    ]
    facts = read_facts(path)
    assert facts["licence"] == "Apache-2.0"
    assert json.loads(facts["results"]) == results
    card = path.with_suffix(".md").read_text()
    assert hash_file(path) in card
    assert "A made-up city." in card
    assert "- Few frames." in card
    assert "| T = 5 | 45 | 0.25 |" in card
    assert yaml.safe_load(path.with_suffix(".yaml").read_text()) == {
        **json.loads(read_facts(best)["recipe"]),
        "schedule": json.loads(read_facts(best)["schedule"]),
    }
    kept, given = Model(name, scale=scale), Model(name, weights=best, scale=scale)
    assert kept.weights_sha256 == hash_file(path)
    assert kept.licence == "Apache-2.0"
    views, flow = made_views(kept.spec, seed=1)  # not those that decided on the precision
    change = np.abs(kept.restore(views, flow) - given.restore(views, flow)).max()
    assert change < 2 * HALF_ERROR


def test_half_precision_only_where_it_does_no_harm(shipped, tiny_weights, tmp_path):
    best = tiny_weights("l1bsr")
    path = ship(best, "l1bsr", {})
    assert "stored as float16" in path.with_suffix(".md").read_text()
    assert path.stat().st_size < 0.9 * best.stat().st_size
    state, facts = read_checkpoint(best), read_facts(best)
    for factor, where in ((300.0, "tail.weight"), (1e6, "tail.weight")):  # coarse; beyond its range
        strong = tmp_path / "strong.safetensors"
        safetensors.torch.save_file(state | {where: factor * state[where]}, strong, facts)
        path = ship(strong, "l1bsr", {})
        assert "stored as float32" in path.with_suffix(".md").read_text()
        kept = read_checkpoint(path)
        assert all((kept[k] == v).all() for k, v in read_checkpoint(strong).items())


def test_what_cannot_ship_leaves_nothing(shipped, tiny_weights):
    with pytest.raises(WeightsError, match="weights of dsa, not of hdr-dsp"):
        ship(tiny_weights("dsa"), "hdr-dsp", {})
    with pytest.raises(BadOptionError, match="does not say its recipe"):
        ship(tiny_weights("dsa", without=["recipe"]), "dsa", {})
    assert not list(shipped.iterdir())


def test_the_recipe_that_is_given_is_kept_as_it_is(shipped, tiny_weights, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("# why it is so\nmethod: dsa\n")
    path = ship(tiny_weights("dsa", without=["recipe"]), "dsa", {}, recipe=recipe)
    assert path.with_suffix(".yaml").read_text() == recipe.read_text()
    with pytest.raises(BadOptionError, match=r"dsa\.yaml beside .* is not the recipe"):
        ship(tiny_weights("dsa"), "dsa", {})
    told = "# with a comment\n" + json.dumps(json.loads(read_facts(tiny_weights("dsa"))["recipe"]))
    (shipped / "dsa.yaml").write_text(told)
    assert ship(tiny_weights("dsa"), "dsa", {}).with_suffix(".yaml").read_text() == told


def test_defaults_are_learned_where_weights_ship(shipped, tiny_weights):
    kinds = ("bands", "burst", "exposures")
    assert [default_model(kind) for kind in kinds] == ["geometric", "act", "act"]
    ship(tiny_weights("dsa", 3), "dsa", {})
    assert default_model("burst") == "act"
    assert default_model("burst", 3) == "dsa"
    assert default_model("burst", 7) == "act"
    for name in ("l1bsr", "dsa", "hdr-dsp"):
        ship(tiny_weights(name), name, {})
    assert [default_model(kind) for kind in kinds] == ["l1bsr", "dsa", "act"]
    assert [default_model(kind, 2) for kind in kinds] == ["l1bsr", "dsa", "act"]
    assert default_model("bands", 3) == "geometric"


def restored_by(source, output, **options):
    """Tags of what super_resolve made of a source."""
    super_resolve(source, output, overwrite=True, ortho=False, **options)
    with rasterio.open(output) as dataset:
        return dataset.tags()


@pytest.fixture
def raster(tmp_path):
    """Writes bands of a made-up city: (names, map transform or not) to a file."""

    def write(names, crs=None):
        path, pixels = tmp_path / "in.tif", made_city((48, 48), 1).astype(np.uint16)
        profile = {"driver": "GTiff", "width": 48, "height": 48, "dtype": "uint16"}
        if crs:
            profile |= {"crs": crs, "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
        with rasterio.open(path, "w", count=len(names), **profile) as dataset:
            for k, name in enumerate(names, 1):
                dataset.write(pixels, k)
                dataset.set_band_description(k, name)
        return path

    return write


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bands_are_restored_by_what_they_suit(shipped, tiny_weights, raster, tmp_path, caplog):
    four, out = ("B02", "B03", "B04", "B08"), tmp_path / "out.tif"
    caplog.set_level("INFO", "l1bsr_geo")
    assert restored_by(raster(four), out)["model"] == "geometric"
    assert "geometric x2 restores (no weights)" in caplog.text
    sha256 = hash_file(ship(tiny_weights("l1bsr"), "l1bsr", {}))
    tags = restored_by(raster(four), out)
    assert (tags["model"], tags["weights_sha256"]) == ("l1bsr", sha256)
    assert f"l1bsr x2 restores (weights {sha256[:12]})" in caplog.text
    assert restored_by(raster((*four, "B11")), out)["model"] == "l1bsr"  # four are read
    for names, crs, asked, why in (
        (four, None, four[::-1], "B08, B04, B03, B02 were asked for"),
        (four, None, four[:2], "B02, B03 were asked for"),
        (four[:3], None, None, "has B02, B03, B04"),
        (four, "EPSG:32631", None, "is on a map"),
    ):
        caplog.clear()
        assert restored_by(raster(names, crs), out, bands=asked)["model"] == "geometric"
        assert "geometric restores instead of l1bsr" in caplog.text
        assert why in caplog.text
        assert not [r for r in caplog.records if r.levelname == "WARNING"]
    tags = restored_by(raster(four, "EPSG:32631"), out, model="l1bsr")
    assert tags["model"] == "l1bsr"


@pytest.fixture
def collect(tmp_path):
    """Writes a folder of SkySat frames with exposure times [ms]."""

    def write(times):
        burst = simulate_burst(
            made_city((176, 176), 3), (64, 64), len(times), noise=0.5, exposures=times
        )
        folder = tmp_path / "frames"
        folder.mkdir(exist_ok=True)
        rows = ["name,integration_time_ms"]
        for t, pixels in enumerate(burst.counts):
            name = f"{1301717367.65 + 0.02 * t:.6f}_sc00108_c2_PAN_i{t:010d}"
            profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint16"}
            with rasterio.open(folder / f"{name}.tif", "w", **profile) as dataset:
                dataset.write(pixels, 1)
            rows.append(f"{name},{times[t]}")
        (folder / "frame_index.csv").write_text("\n".join(rows) + "\n")
        return folder

    return write


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bursts_are_restored_by_what_they_suit(shipped, tiny_weights, collect, tmp_path):
    out, steps = tmp_path / "out.tif", (1.0, 0.5, 1.0, 0.7)
    assert restored_by(collect(steps), out)["model"] == "act"
    ship(tiny_weights("hdr-dsp"), "hdr-dsp", {})
    assert restored_by(collect((1.0,) * 4), out)["model"] == "act"
    ship(tiny_weights("dsa"), "dsa", {})
    assert restored_by(collect((1.0,) * 4), out)["model"] == "dsa"
    assert restored_by(collect(steps), out)["model"] == "act"
    assert restored_by(collect(steps), out, scale=3)["model"] == "act"
    assert restored_by(collect(steps), out, model="shift-and-add")["model"] == "shift-and-add"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_weights_name_their_model_and_scale(shipped, tiny_weights, collect, tmp_path):
    folder, weights = collect((1.0,) * 2), tiny_weights("dsa", 3)
    with pytest.warns(L1bsrGeoWarning, match="one frame"):
        tags = restored_by(folder, tmp_path / "out.tif", weights=weights, frames=1)
    assert (tags["model"], tags["scale"]) == ("dsa", "3")
    assert tags["weights_sha256"] == hash_file(weights)
