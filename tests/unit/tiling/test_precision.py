"""What "auto" means for a scene: tried on the scene, and the same for everyone who works on it."""

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandScene, BandStack
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.precision import multiplies_bf16
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.single_image import SingleImage
from l1bsr_geo.tiling.plan import TilePlan
from l1bsr_geo.tiling.precision import compare_results, settle_precision

half_here = pytest.mark.skipif(
    not multiplies_bf16(torch.device("cpu")), reason="this processor does not multiply bf16"
)


@pytest.fixture
def settle(make_scene, random_pixels, caplog):
    """Settles a model on random pixels: the model, and what was said."""

    def settle(model, pixels=None, size=32, **stack):
        scene = make_scene(random_pixels((64, 64)) if pixels is None else pixels, **stack)
        plan = TilePlan.for_model(model.spec, scene.grid.shape, size)
        with caplog.at_level(logging.INFO, "l1bsr_geo"):
            settled = settle_precision(model, scene, plan)
        return settled, caplog.text

    return settle


def amplified(network):
    """Large numbers whose difference is small: eight bits of mantissa are not enough for it."""
    with torch.no_grad():
        before, last = network.layers[-2:]
        before.weight[1], before.bias[1] = 1.003 * before.weight[0], 1.003 * before.bias[0]
        last.weight[:, 0], last.weight[:, 1] = 300, -300 / 1.003


@half_here
def test_half_the_bits_where_they_are_enough(settle, make_model):
    model, said = settle(make_model())
    assert model.precision == "bf16"
    assert "bf16 restores: differs from fp32 by" in said
    assert pickle.loads(pickle.dumps(model)).precision == "bf16"


@half_here
def test_all_bits_where_half_are_not_enough(settle, make_model):
    model, said = settle(make_model(change=amplified))
    assert model.precision == "fp32"
    assert "fp32 restores: bf16 differs by" in said


@half_here
def test_the_unit_of_floats_does_not_matter(settle, make_model, random_pixels):
    """Reflectances of one thousandth are not alike because their differences are small numbers."""
    reflectances = (random_pixels((64, 64)) / 1e6).astype(np.float32)
    model = make_model(change=amplified, gain=5e-4)
    assert settle(model, reflectances)[0].precision == "fp32"
    assert settle(make_model(gain=5e-4), reflectances)[0].precision == "bf16"


@half_here
def test_the_sample_is_of_where_data_are(settle, make_model, random_pixels):
    pixels = random_pixels((64, 64))
    pixels[:, :, :40] = 0
    model = make_model()
    assert settle(model, pixels, nodata=0)[0].precision == "bf16"
    assert [shape[-2:] for shape in model.forwards] == [(32, 32)] * 2


@half_here
def test_without_data_nothing_is_tried(settle, make_model):
    model = make_model()
    settled, said = settle(model, np.zeros((2, 64, 64), np.uint16), nodata=0)
    assert settled.precision == "fp32"
    assert "no data" in said
    assert model.forwards == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_was_asked_for_is_not_tried(settle, make_model, precision):
    model = make_model().at_precision(precision)
    assert settle(model)[0] is model
    assert model.forwards == []


def test_splines_are_never_tried(settle):
    for name in ("geometric", "bicubic"):
        model = Model(name, precision="bf16")
        assert model.precision == Model(name).precision == "fp32"
        assert settle(model)[0] is model


def test_without_the_hardware_it_is_fp32(settle, make_model, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", dict, raising=False)
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(f"torch.cpu._is_{name}_supported", bool, raising=False)
    model = make_model()
    settled, said = settle(model)
    assert settled.precision == "fp32"
    assert "this cpu does not multiply bf16" in said
    assert model.forwards == []


@half_here
def test_the_same_answer_every_time_for_every_plan(make_model, make_scene, random_pixels):
    model, scene = make_model(), make_scene(random_pixels((100, 100)))
    plans = [None, *(TilePlan.for_model(model.spec, (100, 100), size) for size in (16, 50))]
    assert {settle_precision(model, scene, plan).precision for plan in plans} == {"bf16"}


@half_here
def test_motion_and_bursts_are_tried_as_they_are_restored(make_scene, random_pixels):
    scene = make_scene(
        random_pixels((40, 40), bands=4), FlowField(np.full((4, 2, 4, 4), 0.3, np.float32), 16.0)
    )
    named = dict(zip(("B02", "B03", "B04", "B08"), scene.stack.sources.values(), strict=True))
    stack = BandStack(named, dict.fromkeys(named, GeoGrid((40, 40))), "B03")
    assert settle_precision(Model("l1bsr"), BandScene(stack, scene.flow)).precision == "bf16"


def test_how_far_results_are_apart():
    exact = np.full((2, 100, 100), 1000, np.float32)
    rms, decibels = compare_results(exact, exact + 4.095, np.dtype("uint16"))
    assert (rms, decibels) == pytest.approx((4.095, 60), rel=1e-3)
    assert compare_results(exact, exact + 1, np.dtype("float32"))[1] == pytest.approx(60)
    assert compare_results(exact, exact + 0.255, np.dtype("uint8"))[1] == pytest.approx(60, abs=0.1)
    assert compare_results(exact, exact, np.dtype("uint8")) == (0, np.inf)
    assert compare_results(exact, exact + np.nan, np.dtype("uint8"))[1] == -np.inf


@half_here
def test_a_network_of_ones_own_may_say_no(settle):
    class Exact(SingleImage):
        full_precision = True

    network = nn.Conv2d(2, 2, 3, padding=1)
    spec = ModelSpec("own", scale=1, halo=1, gain=500.0)
    assert settle(Model.from_restorer(SingleImage(network, spec)))[0].precision == "bf16"
    named = replace(spec, name="exact")
    assert Model.from_restorer(Exact(network, named), precision="bf16").precision == "fp32"
