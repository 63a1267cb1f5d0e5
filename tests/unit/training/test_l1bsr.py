"""L1BSR's objective on simulated overlaps, whose truth and motion are exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.l1bsr import L1BSR, make_spec
from l1bsr_geo.models.rcan import REC
from l1bsr_geo.ops.warp import sample
from l1bsr_geo.simulation.overlap_motion import BandShifts
from l1bsr_geo.simulation.overlaps import needed_scene, simulate_overlap
from l1bsr_geo.simulation.scenes import MTF, procedural_scene
from l1bsr_geo.training.l1bsr import GAIN, L1BSRObjective, _read_spline
from l1bsr_geo.training.objective import Batch, Example

SIZE = 40
RNG = np.random.default_rng(0)  # the objective needs it for nothing that is tested with it


def stack(overlaps):
    parts = zip(*((o.views.astype(np.float32), o.flow, o.truth) for o in overlaps), strict=True)
    views, flow, truth = (torch.from_numpy(np.stack(p)) for p in parts)
    return Batch(views, flow, None, truth)


@pytest.fixture(scope="module")
def land():
    rows, columns = needed_scene((SIZE, SIZE), BandShifts())
    return procedural_scene((0, 0, 5 * columns, 20 * rows), "EPSG:32631", seed=3).pixels


@pytest.fixture(scope="module")
def batch(land):
    """Four pairs of a landscape, with little noise: so few are soon learnt by heart."""
    strips = np.split(land, 4, 1)
    pairs = enumerate(strips)
    return stack([simulate_overlap(s, (SIZE, SIZE), noise=0.3, seed=k) for k, s in pairs])


@pytest.fixture(scope="module")
def quiet(land):
    """A pair without noise, of ground so smooth that interpolating it costs nothing."""
    smooth = ndimage.gaussian_filter(land, (0, 2, 2))
    return simulate_overlap(smooth, (SIZE, SIZE), noise=0.0, seed=1), smooth


class Oracle(nn.Module):
    """Gives the same image whatever it sees [DN / 400]."""

    spec = make_spec()

    def __init__(self, image):
        super().__init__()
        self.image = image

    def forward(self, views, flow=None):
        return self.image / GAIN


def rms(a, b):
    return float((a - b).square().mean().sqrt())


def test_the_held_out_view_is_not_seen(batch):
    torch.manual_seed(0)
    network = L1BSR(width=16, blocks=1)
    nn.init.normal_(network.tail.weight, std=0.1)
    other = replace(batch, views=batch.views.clone())
    other.views[:, 1] += 100
    objective = L1BSRObjective()
    one, two = (objective.hold_out(b, RNG) for b in (batch, other))
    assert one.views.shape[1] == one.flow.shape[1] == 1
    assert torch.equal(network(one.views, one.flow), network(two.views, two.flow))
    known = ~one.target.isnan()
    torch.testing.assert_close(two.target[known], one.target[known] + 100 / GAIN)


def test_what_is_observed_of_the_truth_is_the_other_view(quiet):
    pair, _ = quiet
    batch = stack([pair])
    example = L1BSRObjective().hold_out(batch, RNG)
    seen = L1BSRObjective().observe(batch.truth / GAIN, example)
    known = ~example.target.isnan()
    assert 0.5 < known.float().mean() < 0.8
    error = GAIN * (seen - example.target)[known]
    assert error.square().mean().sqrt() < 0.32  # whole DN: 0.29
    # and neither without the motion nor with it turned round
    for places in (0 * example.places, -example.places):
        wrong = L1BSRObjective().observe(batch.truth / GAIN, replace(example, places=places))
        assert GAIN * (wrong - example.target)[known].square().mean().sqrt() > 2


def test_a_kernel_is_what_blurs_the_result(quiet):
    pair, scene = quiet
    batch = stack([pair])
    inside = [(n - 2 * SIZE) // 2 for n in scene.shape[1:]]
    sharp = scene[:, inside[0] :, inside[1] :][:, : 2 * SIZE, : 2 * SIZE]
    sharp = torch.from_numpy(np.ascontiguousarray(sharp))[None] / GAIN
    sigmas = [2 * np.sqrt(-2 * np.log(m)) / np.pi for m in MTF.values()]
    objective = L1BSRObjective(kernel=sigmas)
    example = objective.hold_out(batch, RNG)
    known = ~example.target.isnan()
    error = GAIN * (objective.observe(sharp, example) - example.target)[known]
    unblurred = GAIN * (L1BSRObjective().observe(sharp, example) - example.target)[known]
    assert error.square().mean().sqrt() < 0.32 < 0.5 * unblurred.square().mean().sqrt()
    assert objective.score(Oracle(GAIN * sharp), batch)["score"] > 70


def test_the_truth_beats_what_can_be_done_without_learning(batch):
    objective = L1BSRObjective()
    spline = GAIN * Geometric()(batch.views[:, :1] / GAIN, batch.flow[:, :1])
    truth, still = (
        float(objective.loss(Oracle(image), batch, RNG)[0]) for image in (batch.truth, spline)
    )
    assert truth < 0.7 * still


@pytest.mark.parametrize("options", [{}, {"supervised": True}, {"supervised": True, "both": 1.0}])
def test_the_loss_falls(batch, options):
    torch.manual_seed(0)
    network = L1BSR(width=24, blocks=1, features=4)
    objective = L1BSRObjective(**options)
    before = objective.score(network, batch)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(16):
        loss, parts = objective.loss(network, batch, RNG)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(p.grad.abs().max() > 0 for p in network.parameters())
    assert sum(losses[-3:]) < 0.97 * sum(losses[:3])
    assert np.mean([float(v) for v in parts.values()]) == pytest.approx(losses[-1])
    after = objective.score(network, batch)
    assert after["score"] > before["score"] + 0.3
    assert ("psnr_both" in after) == bool(objective.both)


def test_the_papers_network_learns_too(batch):
    torch.manual_seed(0)
    network = REC(groups=1, blocks=1, width=16, reduction=4)
    objective = L1BSRObjective()
    loss, _ = objective.loss(network, batch, RNG)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert network.head[0].weight.grad.any()
    assert set(objective.score(network, batch)) == {"score"} | {
        f"psnr_{b}" for b in ("b02", "b03", "b04", "b08")
    }


def test_the_score_is_the_psnr_against_truth(batch):
    figures = L1BSRObjective(border=8).score(Geometric(), batch)  # no band moves by 8 px
    restored = Geometric()(batch.views[:, :1], batch.flow[:, :1]).numpy()
    error = ((restored - batch.truth.numpy()) / 400)[..., 16:-16, 16:-16].astype(np.float64)
    psnr = -10 * np.log10((error**2).mean((2, 3))).mean(0)
    for band, expected in zip(("b02", "b03", "b04", "b08"), psnr, strict=True):
        assert figures[f"psnr_{band}"] == pytest.approx(expected, abs=1e-3)
    assert figures["score"] == pytest.approx(psnr.mean(), abs=1e-3)


def test_supervised_targets_are_the_truth_and_both_views_may_be_seen(batch):
    objective = L1BSRObjective(supervised=True, both=0.5)
    rng = np.random.default_rng(0)
    counts = {objective.hold_out(batch, rng).views.shape[1] for _ in range(20)}
    assert counts == {1, 2}
    example = objective.hold_out(batch, rng)
    known = ~example.target.isnan()
    assert example.places is None
    torch.testing.assert_close(GAIN * example.target[known], batch.truth[known])
    assert not known[..., :8, :].any()
    assert known[..., 8:-8, 8:-8].float().mean() > 0.95


def test_pixels_without_data_are_not_compared(batch):
    holed = replace(batch, views=batch.views.clone())
    holed.views[:, 1, 2, 10:20, 10:20] = torch.nan
    objective = L1BSRObjective()
    target = objective.hold_out(holed, RNG).target
    assert target[:, 2, 10:20, 10:20].isnan().all()
    network = L1BSR(width=8, blocks=1)
    loss, parts = objective.loss(network, holed, RNG)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    whole = objective.loss(network, batch, RNG)[1]
    assert parts["l1_b03"] == whole["l1_b03"]
    assert parts["l1_b04"] != whole["l1_b04"]


def test_places_outside_the_image_are_not_compared():
    views = torch.rand(1, 2, 4, 24, 24)
    flow = torch.zeros(1, 2, 4, 2, 24, 24)
    flow[:, 0, 3, 0] = 6.0  # the last 6 columns of the reference see nothing of B08
    flow[:, 1, 0, 1] = -7.0  # the last 7 rows of view 1's B02 show what is below the reference
    flow[:, 1, 2, 0] = -7.0  # column 11 of view 1's B04 is column 18 of the reference,
    flow[:, 0, 2, 0, :, 12:] = 6.0  # which is column 24 of view 0's B04: outside
    example = L1BSRObjective(border=2).hold_out(Batch(views, flow), RNG)
    known = ~example.target[0].isnan()
    assert known[1, 2:22, 2:22].all()
    assert known[3].any(0).nonzero().max() == 17
    assert known[0].any(1).nonzero().max() == 16
    assert known[2].any(0).nonzero().max() == 10
    assert example.places.shape == (1, 4, 2, 24, 24)


def test_what_is_missing_is_said(batch):
    objective = L1BSRObjective()
    with pytest.raises(BadInputError, match="flow is known"):
        objective.hold_out(replace(batch, flow=None), RNG)
    with pytest.raises(BadInputError, match="two views"):
        objective.hold_out(replace(batch, views=batch.views[:, :1], flow=batch.flow[:, :1]), RNG)
    with pytest.raises(BadInputError, match="no truth"):
        objective.score(Geometric(), replace(batch, truth=None))


def test_four_bilinear_readings_are_the_spline():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, 20, 30, generator=generator)
    x = 34 * torch.rand(2, 9, 11, generator=generator) - 2
    y = 24 * torch.rand(2, 9, 11, generator=generator) - 2
    expected = sample(image, x, y, "spline")
    torch.testing.assert_close(_read_spline(image, x, y), expected, atol=2e-5, rtol=0)


def test_an_example_on_its_own_grid_is_observed_as_it_is():
    image = torch.rand(1, 4, 8, 8)
    example = Example(image, None, None, image)
    torch.testing.assert_close(L1BSRObjective().observe(image, example), image)
