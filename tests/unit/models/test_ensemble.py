"""Spreads against closed forms: what turns alike has none, and noise has that of its mean."""

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.calibration import Calibration, find_calibration
from l1bsr_geo.models.checkpoint import SHIPPED
from l1bsr_geo.models.classical import Bicubic, Geometric
from l1bsr_geo.models.ensemble import (
    Ensemble,
    LeftOutSpread,
    can_leave_out,
    group_frames,
    jackknife_factor,
)
from l1bsr_geo.models.entries import MODELS
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.shift_and_add import ShiftAndAdd
from l1bsr_geo.models.shipped import made_views


def smooth_flow(shape, seed=0):
    """(B, T, C, 2, H, W), another affine motion of each view."""
    generator = torch.Generator().manual_seed(seed)
    *views, height, width = shape
    y, x = torch.meshgrid(torch.arange(height) - 9.0, torch.arange(width) - 7.0, indexing="ij")
    a = torch.rand(*views, 2, 3, 1, 1, generator=generator) * 2 - 1
    return a[..., 0, :, :] + 0.01 * (a[..., 1, :, :] * x + a[..., 2, :, :] * y)


@pytest.mark.parametrize(
    "restorer",
    [
        Geometric(2),
        Bicubic(2, "corner"),
        Bicubic(2, "centre"),
        Bicubic(3, "centre"),
        ShiftAndAdd(2),
        ShiftAndAdd(3),
    ],
    ids=lambda r: f"{r.spec.name}-{r.spec.scale}-{r.spec.aligned}",
)
def test_what_turns_alike_has_no_spread(restorer):
    """Also at the edges, also of an image that is not square: vectors and half pixels are right."""
    frames, bands = (1, 3) if restorer.spec.name == "geometric" else (4, 1)
    views = 1000 + 300 * torch.randn(
        1, frames, bands, 34, 27, generator=torch.Generator().manual_seed(1)
    )
    flow = smooth_flow(views.shape)
    spread = Ensemble("turned").of(restorer)(views, flow)
    assert spread.shape == restorer(views, flow).shape
    assert spread[..., 12:-12, 12:-12].max() < 0.05
    assert spread.max() < 0.05 or restorer.spec.flow  # what flows in from outside differs there
    upside_down = Ensemble("turned").of(Misled(restorer))(views, flow)
    if restorer.spec.flow:  # the test can fail
        assert upside_down[..., 12:-12, 12:-12].median() > 10


@dataclass(frozen=True)
class Misled:
    """A restorer that takes the vectors of another image."""

    restorer: object

    @property
    def spec(self):
        return self.restorer.spec

    def __call__(self, views, flow=None, **options):
        return self.restorer(views, None if flow is None else flow.abs(), **options)


@dataclass(frozen=True)
class FirstPixel:
    """Every pixel becomes the one in the first row and column."""

    spec: ModelSpec

    def __call__(self, views, flow=None):
        return views[:, 0, :, :1, :1].expand(views[:, 0].shape)


@pytest.mark.parametrize(("bands", "members"), [(None, 8), (("B02",), 4)])
def test_spread_is_the_sample_deviation_of_the_members(bands, members):
    """Corners are 1, 2, 3, 7; bands of a detector, which are apart, are not transposed."""
    image = torch.zeros(1, 1, 1, 9, 12)
    image[..., 0, 0], image[..., 0, -1], image[..., -1, 0], image[..., -1, -1] = 1, 2, 3, 7
    spread = Ensemble("turned").of(FirstPixel(ModelSpec("corner", bands, scale=1)))(image)
    squares = np.var([1, 2, 3, 7]) * members
    assert spread.numpy() == pytest.approx((squares / (members - 1)) ** 0.5, rel=1e-5)


@dataclass(frozen=True)
class Mean:
    """The frames' mean."""

    spec: ModelSpec

    def __call__(self, views, flow=None, *, exposures=None):
        return views.mean(1)


@pytest.mark.parametrize("frames", [3, 4, 9, 10, 30])
def test_leaving_out_tells_the_noise_of_a_mean(frames):
    noise = torch.randn(
        1, frames, 1, 160, 160, generator=torch.Generator().manual_seed(frames), dtype=torch.float32
    )
    mean = Mean(ModelSpec("mean", frames=(1, 99), scale=1, exposures=True))
    spread = Ensemble("left-out").of(mean)(10 * noise)
    assert float(spread.square().mean().sqrt()) == pytest.approx(10 / frames**0.5, rel=0.02)


def test_factor_is_the_jackknife_s_where_every_frame_is_left_out():
    assert jackknife_factor(7, [[t] for t in range(7)]) == pytest.approx(6 / 7)


@pytest.mark.parametrize("frames", [3, 6, 9, 10, 30, 200])
def test_every_frame_but_the_reference_is_left_out_once(frames):
    groups = group_frames(frames)
    assert sorted(t for group in groups for t in group) == list(range(1, frames))
    assert 2 <= len(groups) <= 8
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1


def test_frames_can_be_left_out_of_what_takes_fewer():
    takes = ModelSpec("net", frames=(1, 99))
    assert [can_leave_out(takes, n) for n in (1, 2, 3, 15)] == [False, False, True, True]
    assert not can_leave_out(replace(takes, frames=(9, 9)), 9)


def test_networks_encode_each_frame_once(tiny_weights):
    """And restore the same as of fewer frames; with gaps and exposures."""
    network = MODELS["hdr-dsp"].load(tiny_weights("hdr-dsp")).eval()
    views = torch.rand(1, 5, 1, 24, 30, generator=torch.Generator().manual_seed(3))
    views[:, 2, ..., :20] = torch.nan
    flow, times = smooth_flow(views.shape), torch.tensor([[1.0, 0.5, 2, 1, 1]])
    made = []
    network.encoder.register_forward_hook(lambda *_: made.append(1))
    spread = Ensemble("left-out").of(network)
    with torch.inference_mode():
        shared = spread(views, flow, exposures=times)
        assert len(made) == 5
        apart = LeftOutSpread(spread.spec, Plain(network), Calibration())
        assert torch.allclose(shared, apart(views, flow, exposures=times), atol=1e-6)
    assert float(shared.median()) > 0


@dataclass(frozen=True)
class Plain:
    """A network of which no more is known than that it restores."""

    network: object

    @property
    def spec(self):
        return self.network.spec

    def __call__(self, views, flow=None, *, exposures=None):
        return self.network(views, flow, exposures=exposures)


@pytest.mark.parametrize(
    ("name", "method"), [("l1bsr", "turned"), ("dsa", "turned"), ("dsa", "left-out")]
)
def test_context_is_told(tiny_weights, name, method):
    model = Model(name, tiny_weights(name)).spread(Ensemble(method))
    assert model.probe_halo(0.5) <= model.spec.halo


def test_statistics_of_a_scene_are_those_of_every_way(tiny_weights):
    model = Model("l1bsr-rcan", tiny_weights("l1bsr-rcan")).spread(Ensemble("turned"))
    views, _ = made_views(model.spec, size=32)
    statistics = model.scene_statistics([views])
    assert len(statistics) == 4
    pooled, frozen = model.restore(views), model.restore(views, statistics=statistics)
    np.testing.assert_allclose(frozen, pooled, atol=1e-3)
    assert np.median(frozen) > 0.01


def test_a_model_and_its_spread_share_a_network_and_travel(tiny_weights):
    model = Model("dsa", tiny_weights("dsa"))
    spread = model.spread(Ensemble("left-out", Calibration(2.0, 3.0)))
    assert model.spec.name == "dsa"
    assert spread.identity != model.identity
    views, flow = made_views(model.spec, size=24)
    sent = pickle.loads(pickle.dumps(spread))
    assert len(pickle.dumps(spread)) < 4000
    sigma = sent.restore(views, flow)
    raw = model.spread(Ensemble("left-out")).restore(views, flow)
    np.testing.assert_allclose(sigma, np.hypot(2 * raw, 3), rtol=1e-4)


def test_calibrations_are_of_the_weights_that_ship():
    """Other weights err otherwise: whoever ships new ones measures again."""
    for name, scale, method in (("dsa", 2, "left-out"), ("dsa", 3, "left-out"),
                                ("hdr-dsp", 2, "left-out"), ("l1bsr", 2, "turned")):  # fmt: skip
        model = Model(name, scale=scale)
        assert (SHIPPED / f"{name}.safetensors").is_file()
        found = find_calibration(name, scale, model.weights_sha256, method)
        assert found is not None, "run tests/benchmarks/bench_uncertainty.py --ship"
        assert 0.3 < found.factor < 30
        assert 0 <= found.floor < 30
        assert "sigma" in str(found)
    assert find_calibration("dsa", 2, "0" * 64, "left-out") is None
    assert find_calibration("act", 2, None, "left-out") is not None
