"""Recipes: what they may say, what they are told in a line, and that all they name is there."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import rasterio
import torch
from affine import Affine

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError, WeightsError
from l1bsr_geo.models.entries import MODELS
from l1bsr_geo.pipelines.training import draw_validation, make_trainer
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.arguments import fit_arguments
from l1bsr_geo.training.methods import METHODS, SOURCES, find_method, make_objective, make_student
from l1bsr_geo.training.recipe import read_recipe

RECIPE = """
method: dsa
network: {scale: 2, width: 4, encoder_blocks: 1, decoder_blocks: 1, estimates_flow: false}
objective: {held_out: 2}
data: {kind: simulated-bursts, images: ["*.tif"], count: 2, size: 16, frames: [4, 5]}
validation: {kind: simulated-bursts, images: [a.tif], count: 3, batch: 2, size: 16, frames: [4, 4]}
schedule: {iterations: 2, batch: 2, lr: 1e-3, seed: 5}
"""


@pytest.fixture
def write(tmp_path):
    def write(old="", new="", text=RECIPE):
        assert old in text
        path = tmp_path / "recipe.yaml"
        path.write_text(text.replace(old, new) if old else text)
        return path

    return write


@pytest.fixture
def pictures(tmp_path):
    """A folder of scenes to simulate from."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    profile = {"driver": "GTiff", "height": 200, "width": 200, "count": 1, "dtype": "float32"}
    with rasterio.open(
        folder / "a.tif", "w", **profile, crs="EPSG:32631", transform=Affine.scale(0.5)
    ) as file:
        file.write(made_city((200, 200), 3), 1)
    return folder


def test_is_read_with_types_and_defaults(write, tmp_path):
    recipe = read_recipe(write())
    assert (recipe.method, recipe.model) == ("dsa", "dsa")
    assert recipe.schedule.lr == 1e-3  # YAML's own 1e-3 is a text
    assert recipe.schedule.clip == 1.0
    assert recipe.data.kind == "simulated-bursts"
    assert "kind" not in recipe.data.options
    assert (recipe.validation.count, recipe.validation.batch) == (3, 2)
    assert recipe.validation.samples.options["count"] == 3  # the pool is of as many
    assert recipe.start == {}
    assert recipe.root == tmp_path
    assert "schedule" not in recipe.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("objective:", "objectiv:", "recipe.yaml: found 'objectiv', allowed method, model,"),
        ("lr: 1e-3", "lr: fast", "recipe.yaml: schedule.lr: found 'fast', allowed a number"),
        ("lr: 1e-3", "rate: 1", "recipe.yaml: schedule: found 'rate', allowed iterations, batch"),
        ("batch: 2, lr", "batch: 2.5, lr", "schedule.batch: found 2.5, allowed a whole number"),
        ("batch: 2, lr", "batch: true, lr", "schedule.batch: found True, allowed a whole number"),
        ("seed: 5", "patience: no", "patience: found False, allowed a whole number or null"),
        ("seed: 5", "precision: fp8", "schedule.precision: found 'fp8', allowed auto, fp32, bf16"),
        ("seed: 5", "rates: {fnet: x}", "schedule.rates.fnet: found 'x', allowed a number"),
        ("seed: 5", "ema: 2", "schedule.ema: found 2.0, allowed from 0 to below 1"),
        ("{held_out: 2}", "[2]", "objective: found \\[2\\], allowed names with values"),
        ("method: dsa", "method: dsb", "there is no method 'dsb'; there are act, fnet, dsa, "),
        ("method: dsa", "", "method: found None, one is asked for"),
        ("data: {kind: simulated-bursts", "data: {kind: l1bsr-pairs",
         "data.kind: found 'l1bsr-pairs', allowed simulated-bursts, hdr-dsp-stacks, skysat"),
        ("count: 3", "count: 0", "validation.count: found 0, allowed 1 or more"),
        ("data:", "#", "recipe.yaml: data is not given"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(write, old, new, message):
    with pytest.raises(BadOptionError, match=message):
        read_recipe(write(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width: 4", "widht: 4", "recipe.yaml: network: found 'widht', allowed base, width, "),
        ("width: 4", "width: wide", "network.width: found 'wide', allowed a whole number"),
        ("width: 4", "name: mine", "network: found 'name', allowed base, width, "),
        ("scale: 2", "scale: 7", "dsa has no scale 7; there is 2, 3"),
        ("held_out: 2", "heldout: 2", "objective: found 'heldout', allowed supervised, held_out"),
        ("frames: [4, 5]", "frames: [4]", "frames: found \\[4\\], allowed a list of 2"),
        ("frames: [4, 4]", "frame: 4", "validation: found 'frame', allowed images, count, size"),
        ("[\"*.tif\"]", "7", "data.images: found 7, allowed a list, each a text or a path"),
        ("method: dsa", "{method: dsa, model: geometric}", "geometric has nothing to train"),
        ("seed: 5", "rates: {decode: 0, coder: 1}", "found 'coder', with which no parameter's"),
    ],
)  # fmt: skip
def test_options_are_checked_before_any_work(write, pictures, old, new, message):
    text = RECIPE
    if new.startswith("{"):
        old, new = "method: dsa\n", "method: dsa\nmodel: geometric\n"
    recipe = read_recipe(write(old, new, text), root=pictures)
    with pytest.raises(BadOptionError, match=message):
        make_trainer(recipe, pictures / "run", "cpu")
    assert not (pictures / "run").exists()


def test_files_that_are_not_there(write, tmp_path):
    with pytest.raises(MissingInputError, match="there is no such recipe"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(MissingInputError, match="there is no such folder of data"):
        read_recipe(write(), root=tmp_path / "none")
    with pytest.raises(BadInputError, match="not YAML"):
        read_recipe(write(text="a: [1"))
    with pytest.raises(BadInputError, match="expected names with values"):
        read_recipe(write(text="- 1"))
    recipe = read_recipe(write("schedule:", "start: none.safetensors\nschedule:"))
    assert recipe.start == {"": tmp_path / "none.safetensors"}
    with pytest.raises(MissingInputError, match=r"none.safetensors: there is no such"):
        make_trainer(recipe, tmp_path / "run", "cpu")


def test_the_command_line_has_the_last_word(write):
    with pytest.raises(BadOptionError, match="method: found dsa, fnet is asked for"):
        read_recipe(write(), method="fnet")
    assert read_recipe(write("method: dsa", ""), method="dsa").method == "dsa"
    recipe = read_recipe(write()).override(iterations=7, start=Path("x/y.safetensors"))
    assert recipe.schedule.iterations == 7
    assert recipe.start == {"": Path("x/y.safetensors")}
    assert recipe.text["start"] == "y.safetensors"  # the place may change, the file may not


LEARNT = [name for name in METHODS if name != "act"]  # whose parameters are searched


@pytest.mark.parametrize("place", [*(METHODS[m].objective for m in LEARNT), *SOURCES.values()])
def test_what_methods_name_is_there(place):
    module, _, name = place.partition(":")
    found = getattr(pytest.importorskip(module), name)
    wanted = ("draw",) if place in SOURCES.values() else ("hold_out", "observe", "loss", "score")
    assert all(callable(getattr(found, method)) for method in wanted)


@pytest.mark.parametrize("name", LEARNT)
def test_every_method_has_a_network(name):
    method = find_method(name)
    assert set(method.sources) <= set(SOURCES)
    with torch.device("meta"):
        student = make_student(method, method.model, {}, "network", 0)
    entry = MODELS[method.model]
    trained = student.network.get_submodule(student.part)
    assert {k: v.shape for k, v in trained.state_dict().items()} == entry.shapes()
    assert set(student.facts) == {"model", "scale", "network"}


def test_the_scale_reaches_all(write, pictures):
    recipe = read_recipe(write("scale: 2", "scale: 3"), root=pictures)
    method = find_method("dsa")
    student = make_student(method, "dsa", recipe.network, "network", 0)
    assert student.network.spec.scale == 3
    assert make_objective(method, {}, student.scale, "objective", Path()).scale == 3
    [first, second] = draw_validation(recipe, student.scale)
    assert first.truth.shape == (2, 1, 48, 48)
    assert len(second.views) == 1
    again = draw_validation(recipe, student.scale)
    assert torch.equal(first.views, again[0].views)


def test_weights_tell_how_to_build_their_network_and_start_another(write, pictures, tmp_path):
    recipe = read_recipe(write(), root=pictures)
    best = make_trainer(recipe, tmp_path / "run", "cpu").run()
    restorer = MODELS["dsa"].load(best)  # by what the file says
    assert restorer.encoder.inputConv.out_channels == 4
    method = find_method("dsa")
    students = [make_student(method, "dsa", recipe.network, "network", k) for k in (5, 5, 6)]
    first = [next(s.network.parameters()) for s in students]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    students[0].load(best)
    expected = restorer.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in students[0].network.state_dict().items())
    with pytest.raises(WeightsError, match="as a start for dsa"):
        make_student(method, "dsa", {"width": 8}, "network", 0).load(best)
    with pytest.raises(
        BadOptionError, match="start of dsa: found 'fnet', allowed encoder, decoder"
    ):
        students[0].load(best, "fnet")


def test_a_part_can_start_by_itself(tmp_path):
    fnet = make_student(find_method("fnet"), "fnet", {}, "network", 1)
    torch.save(fnet.network.get_submodule(fnet.part).state_dict(), tmp_path / "fnet.pt")
    dsa = make_student(find_method("hdr-dsp"), "hdr-dsp", {}, "network", 2)
    before = dsa.network.encoder.inputConv.weight.clone()
    dsa.load(tmp_path / "fnet.pt", "fnet")
    expected = fnet.network.get_submodule(fnet.part).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in dsa.network.fnet.state_dict().items())
    assert torch.equal(dsa.network.encoder.inputConv.weight, before)


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Outer:
    path: str | Path
    inner: Inner = Inner()
    kind: Literal["a", "b"] = "a"
    steps: Sequence[float] = ()
    limit: float | None = None
    on: bool = False


def test_arguments_of_all_types():
    given = {"path": "x/*.jpg", "inner": {"depth": 2}, "kind": "b", "steps": [1, "2e0"], "on": True}
    made = Outer(**fit_arguments(Outer, given, "here", Path("/root")))
    assert made == Outer(Path("/root/x/*.jpg"), Inner(2), "b", (1.0, 2.0), None, True)
    assert isinstance(made.steps[0], float)
    absolute = fit_arguments(Outer, {"path": "/y"}, "here", Path("/root"))
    assert absolute == {"path": Path("/y")}
    for wrong, message in [
        ({}, "here.path: not given"),
        ({"path": 1}, "here.path: found 1, allowed a text or a path"),
        ({"path": "x", "inner": {"deep": 1}}, "here.inner: found 'deep', allowed depth"),
        ({"path": "x", "inner": 3}, "here.inner: found 3, allowed names with values"),
        ({"path": "x", "kind": "c"}, "here.kind: found 'c', allowed a, b"),
        ({"path": "x", "steps": 1}, "here.steps: found 1, allowed a list, each a number"),
        ({"path": "x", "on": 1}, "here.on: found 1, allowed true or false"),
    ]:
        with pytest.raises(BadOptionError, match=message):
            fit_arguments(Outer, wrong, "here", Path())


def test_schedules_of_recipes_name_every_option(write):
    schedule = read_recipe(write()).schedule
    names = list(inspect.signature(type(schedule)).parameters)
    text = "\n".join(f"  {name}: {_yaml(getattr(schedule, name))}" for name in names)
    head = RECIPE.partition("schedule")[0]
    assert read_recipe(write(text=f"{head}schedule:\n{text}\n")).schedule == schedule


def _yaml(value):
    return "null" if value is None else value


def test_validation_may_draw_more_than_its_pool(write, pictures):
    recipe = read_recipe(
        write("count: 3, batch: 2", "count: 2, samples: 5, batch: 3"), root=pictures
    )
    assert recipe.validation.samples.options["count"] == 2
    sizes = [len(batch.views) for batch in draw_validation(recipe)]
    assert sizes == [3, 2]
