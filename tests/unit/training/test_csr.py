"""CSR's objective against simulated overlaps: known flows, composed flows, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.csr import CSR
from l1bsr_geo.models.csr_compact import CompactCSR
from l1bsr_geo.ops.warp import warp
from l1bsr_geo.simulation.overlap_motion import BandShifts
from l1bsr_geo.simulation.overlaps import needed_scene, simulate_overlap
from l1bsr_geo.training.csr import BANDS, CSRObjective, band_pairs, contrast
from l1bsr_geo.training.objective import Batch

SHIFTS = BandShifts(between=3.0, relief=0.05)
IMAGES = [(t, b) for t in range(2) for b in range(4)]


def overlaps(count=2, size=64, smooth=4.0, noise=0.0, alike=True):
    """Of ground without alias, so that a band can be read between its pixels."""
    made = []
    for k in range(count):
        rng = np.random.default_rng(k)
        shape = needed_scene((size, size), SHIFTS)
        bands = rng.standard_normal((1 if alike else 4, *shape))
        bands = ndimage.gaussian_filter(bands, (0, smooth, smooth))
        bands = 400 + 80 * bands / bands.std() * np.ones((4, 1, 1))
        made.append(
            simulate_overlap(
                bands.astype(np.float32), (size, size), shifts=SHIFTS, noise=noise, seed=k
            )
        )
    views = torch.from_numpy(np.stack([o.views for o in made]).astype(np.float32))
    return Batch(views, torch.from_numpy(np.stack([o.flow for o in made])))


class Told(nn.Module):
    """Answers with flows that it was told, in turn."""

    def __init__(self, *flows):
        super().__init__()
        self.flows = list(flows)
        self.seen = []

    def forward(self, pair):
        self.seen.append(pair)
        return self.flows.pop(0)


@pytest.fixture(scope="module")
def batch():
    return overlaps()


@pytest.mark.parametrize(
    ("target", "moving"), [((0, 1), (0, 3)), ((1, 0), (0, 2)), ((1, 3), (1, 1))]
)
def test_a_pair_is_explained_by_its_flow(batch, target, moving):
    """Warped by the flow that is said to be known, the moving band is the target."""
    pairs = CSRObjective().pairs(batch, [target] * 2, [moving] * 2, np.random.default_rng(0))
    assert pairs.images.shape == (2, 2, 48, 48)
    first, second = pairs.images.split(1, 1)
    found = warp(second, pairs.flow, "spline")
    at = torch.stack(torch.meshgrid(*(torch.arange(48) + 0.5,) * 2, indexing="xy")) + pairs.flow
    # a spline and the noiseless simulation's need some pixels around
    inner = pairs.known & ((at > 3) & (at < 45)).all(1, keepdim=True)
    scale = first.std()
    # the bands' MTF differ by a little, and DN are whole
    assert ((found - first).abs() * inner).amax() < 0.1 * scale
    still = ((second - first) * inner).square().sum() / inner.sum()
    assert still.sqrt() > 0.3 * scale


def test_cuts_widen_the_range_of_motion():
    batch = overlaps(1, 64)
    rng = np.random.default_rng(0)
    objective = CSRObjective(reach=10, room=8)
    means = []
    for _ in range(40):
        pairs = objective.pairs(batch, [(0, 1)], [(0, 0)], rng)
        means.append(pairs.flow.mean((0, 2, 3)).numpy())
    spread = np.ptp(means, axis=0)
    assert (spread > 12).all()
    assert np.abs(means).max() < 10.6  # whole pixels are cut, and the flow is not constant
    whole = CSRObjective(room=0).pairs(batch, [(0, 1)], [(0, 0)], rng)
    assert (whole.images[0, 1] == batch.views[0, 0, 0]).all()
    torch.testing.assert_close(whole.flow, batch.flow[:, 0, 0])


def test_the_flow_is_not_known_outside():
    batch = overlaps(1, 64)
    pairs = CSRObjective(room=0).pairs(batch, [(0, 1)], [(1, 0)], np.random.default_rng(0))
    x = torch.arange(64) + 0.5 + pairs.flow[0, 0]
    y = torch.arange(64)[:, None] + 0.5 + pairs.flow[0, 1]
    outside = (x < 0) | (x > 64) | (y < 0) | (y > 64)
    assert outside.any()
    assert not pairs.known[0, 0][outside].any()
    assert pairs.known.float().mean() > 0.6


def test_the_true_flow_has_no_error_and_another_has_its_length(batch):
    objective = CSRObjective(room=4)
    example = objective.hold_out(batch, np.random.default_rng(3))
    truth = example.target.nan_to_num(0)
    for move, far in (((0.0, 0.0), 0.0), ((0.3, -0.4), 0.5)):
        told = Told(truth + torch.tensor(move)[:, None, None])
        loss, parts = objective.loss(told, batch, np.random.default_rng(3))
        assert float(parts["epe_0"]) == pytest.approx(far, abs=2e-3)
        # large errors count by their logarithm, small ones as they are
        assert float(loss) == pytest.approx(0.5 * np.log(1 + far / 0.5), abs=2e-3)
        assert float(parts["x"]) == pytest.approx(abs(move[0]), abs=1e-6)
        assert float(parts["y"]) == pytest.approx(abs(move[1]), abs=1e-6)
        # the hourglass is shown contrast: no mean, deviation 1
        assert told.seen[0].mean((2, 3)).abs().max() < 1e-5
        torch.testing.assert_close(told.seen[0].std((2, 3)), torch.ones(2, 2))


def test_every_pair_of_images_is_drawn(batch):
    drawn = set()
    objective = CSRObjective(room=0)
    for seed in range(150):
        example = objective.hold_out(batch, np.random.default_rng(seed))
        for sample, (first, second) in zip(batch.views, example.views[:, :, 0], strict=True):
            at = [
                next(k for k, (t, b) in enumerate(IMAGES) if torch.equal(sample[t, b], image))
                for image in (first, second)
            ]
            drawn.add(tuple(at))
    assert all(a != b for a, b in drawn)
    assert len(drawn) > 0.9 * 8 * 7


def test_the_composed_flow_brings_a_band_onto_itself(batch):
    """True flows by way of any anchor leave little; without motion the difference stays."""
    objective = CSRObjective("anchor", smoothness=0.0)
    losses = []
    for seed in range(6):
        example = objective.hold_out(batch, np.random.default_rng(seed))
        first, anchor, last = example.views[:, :, 0].unbind(1)
        there, back = (
            torch.cat([true_flow(batch, k, a[k], b[k]) for k in range(2)])
            for a, b in ((first, anchor), (anchor, last))
        )
        truth, _ = objective.loss(Told(there, back), batch, np.random.default_rng(seed))
        none, _ = objective.loss(
            Told(*(torch.zeros_like(there),) * 2), batch, np.random.default_rng(seed)
        )
        losses.append((float(truth), float(none)))
    truth, none = np.transpose(losses)
    assert truth.max() < 0.05
    assert none.mean() > 0.3


def true_flow(batch, sample, target, moving):
    """Between two images of a sample, found by their pixels."""
    t, m = (
        next(at for at in IMAGES if torch.equal(batch.views[sample][at], image))
        for image in (target, moving)
    )
    one = Batch(batch.views[[sample]], batch.flow[[sample]])
    return CSRObjective(room=0).pairs(one, [t], [m], np.random.default_rng(0)).flow


def test_the_anchor_stage_uses_no_truth(batch):
    network = CompactCSR(widths=(4, 4, 4), features=2)
    objective = CSRObjective("anchor")
    with torch.no_grad():
        known, _ = objective.loss(network, batch, np.random.default_rng(0))
        blind, parts = objective.loss(network, Batch(batch.views), np.random.default_rng(0))
    assert float(known) == float(blind)
    assert float(blind) == pytest.approx(
        float(parts["photometric"]) + 0.01 * float(parts["variation"]), rel=1e-5
    )


def test_variation_is_that_of_a_ramp():
    batch = overlaps(1, 64)
    ramp = torch.zeros(1, 2, 64, 64)
    ramp[:, 0] = 0.02 * torch.arange(64.0)
    zero = torch.zeros_like(ramp)
    _, parts = CSRObjective("anchor").loss(Told(ramp, zero), batch, np.random.default_rng(0))
    assert float(parts["variation"]) == pytest.approx(0.02 / 2, rel=1e-4)


@pytest.mark.parametrize("stage", ["known", "anchor"])
def test_it_learns(stage):
    """From a disturbed start: the network registers this ground before it has learnt anything."""
    torch.manual_seed(1)
    batch = overlaps(2, 40)
    network = CompactCSR(widths=(4, 8, 8), features=4)
    with torch.no_grad():
        for step in network.refine:
            step.stiffness += 6
    objective = CSRObjective(stage, room=2, smoothness=0.0)
    optimiser = torch.optim.Adam(network.parameters(), 0.05 if stage == "known" else 0.01)
    losses = []
    for _ in range(8):
        loss, _ = objective.loss(network, batch, np.random.default_rng(5))
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_the_hourglass_learns_too():
    torch.manual_seed(0)
    batch, network = overlaps(1, 48), CSR()
    loss, parts = CSRObjective(room=0).loss(network, batch, np.random.default_rng(0))
    loss.backward()
    assert network.conv2.weight.grad.abs().max() > 0
    assert "surprise" not in parts


def test_scores_name_pairs_and_count_pixels(batch):
    objective = CSRObjective(room=4)
    torch.manual_seed(0)
    figures = objective.score(CompactCSR(widths=(4, 4, 4), features=2), batch)
    names = [f"epe_{a}_{b}" for i, a in enumerate(BANDS) for b in BANDS[i:]]
    assert sorted(figures) == sorted(["score", "x", "y", *names])
    assert figures["score"] == pytest.approx(
        -np.average(
            [figures[n] for n in names], weights=[1 if n[4:7] == n[8:] else 2 for n in names]
        ),
        rel=1e-6,
    )
    again = objective.score(CompactCSR(widths=(4, 4, 4), features=2), batch)
    assert set(again) == set(figures)

    class Off(nn.Module):
        """The truth, and 0.3 px across and 0.4 px along."""

        def forward(self, pair):
            return next(self.truths) + torch.tensor([0.3, -0.4])[:, None, None]

    off, rng = Off(), np.random.default_rng(0)
    off.truths = iter(
        [objective.pairs(batch, [t] * 2, [m] * 2, rng).flow for _, t, m in band_pairs(4)]
    )
    figures = objective.score(off, batch)
    assert figures["score"] == pytest.approx(-0.5, abs=1e-5)
    assert (figures["x"], figures["y"]) == pytest.approx((0.3, 0.4), abs=1e-5)
    assert all(figures[name] == pytest.approx(0.5, abs=1e-5) for name in names)


def test_mistakes_get_one_line(batch):
    with pytest.raises(BadOptionError, match="stage: found 'both', expected known or anchor"):
        CSRObjective("both")
    with pytest.raises(BadOptionError, match="room: found -1"):
        CSRObjective(room=-1)
    rng = np.random.default_rng(0)
    with pytest.raises(BadInputError, match="no flow"):
        CSRObjective().hold_out(Batch(batch.views), rng)
    with pytest.raises(BadInputError, match="too small"):
        CSRObjective(room=16).hold_out(batch, rng)
    with pytest.raises(BadInputError, match=r"two views .* got 1 views of 4 bands"):
        CSRObjective("anchor").hold_out(Batch(batch.views[:, :1]), rng)


def test_contrast_has_no_mean_and_unit_deviation():
    image = 400 + 30 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = contrast(image)
    torch.testing.assert_close(found.mean((2, 3)), torch.zeros(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std((2, 3)), torch.ones(2, 3))
    assert contrast(torch.full((1, 4, 4), 7.0)).abs().max() == 0


@pytest.mark.parametrize("stage", ["known", "anchor"])
def test_gaps_of_the_second_view_teach_nothing(stage, batch):
    gaps = batch.views.clone()
    gaps[:, 1, :, 10:20, 5:30] = torch.nan
    network = CompactCSR()
    for seed in range(4):
        loss, _ = CSRObjective(stage).loss(
            network, replace(batch, views=gaps), np.random.default_rng(seed)
        )
        assert bool(loss.isfinite())
