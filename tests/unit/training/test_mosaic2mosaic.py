"""Mosaic to mosaic: the truth foretells other frames to their noise; none is its own label."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.flow import BurstFlow
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.ops.mosaic import sample_mosaic
from l1bsr_geo.ops.warp import warp
from l1bsr_geo.registration.mosaics import align_mosaics
from l1bsr_geo.simulation.mosaics import simulate_mosaics
from l1bsr_geo.training.mosaic2mosaic import (
    Mosaic2MosaicObjective,
    find_differing,
    read_mosaics,
)
from l1bsr_geo.training.mosaics import SimulatedMosaics
from l1bsr_geo.training.own_mosaics import MosaicCrops, OwnMosaics, hold_back

SIGMA = 8.0


class Known(nn.Module):
    """Gives colours that are known, whatever it sees."""

    spec = ModelSpec("known", scale=1, gain=255.0)

    def __init__(self, colours):
        super().__init__()
        self.colours = nn.Parameter(colours / 255)

    def forward(self, views, flow=None):
        self.seen = views
        return self.colours


@pytest.fixture(scope="module")
def smooth():
    """A colour scene that splines read exactly enough."""
    source = SimulatedMosaics(size=128)
    scene = source.draw(np.random.default_rng(0), 1).truth[0].numpy()
    return torch.nn.functional.avg_pool2d(torch.from_numpy(scene), 3, 1, 1).numpy()


@pytest.fixture(scope="module")
def burst(smooth):
    return simulate_mosaics(smooth, (80, 80), 5, noise=SIGMA, pattern="grbg", seed=3)


@pytest.fixture(scope="module")
def batch(burst):
    views, flow = (torch.from_numpy(v)[None, :, None] for v in (burst.frames, burst.flow))
    return replace(SimulatedMosaics(size=16).draw(np.random.default_rng(0), 1),
                   views=views, flow=flow, truth=torch.from_numpy(burst.truth[:1]))  # fmt: skip


def test_the_truth_foretells_other_mosaics_to_their_noise(batch):
    objective = Mosaic2MosaicObjective(pattern="grbg")
    example = objective.hold_out(batch, np.random.default_rng(0))
    seen = objective.observe(batch.truth / 255, example)
    apart = 255 * (seen - example.target)[..., 4:-4, 4:-4]
    known = apart[~apart.isnan()]
    assert len(known) > 0.6 * apart.numel()
    assert float(known.std()) == pytest.approx(SIGMA, rel=0.05)
    assert abs(float(known.mean())) < 0.3
    other = Mosaic2MosaicObjective(pattern="rggb").observe(batch.truth / 255, example)
    wrong = 255 * (other - example.target)[..., 4:-4, 4:-4]
    assert float(wrong[~wrong.isnan()].std()) > 1.2 * SIGMA


def test_what_moved_is_not_compared(batch):
    views = batch.views.clone()
    views[:, 2, :, 30:46, 30:46] += 60  # something bright passes by
    moved = replace(batch, views=views)
    objective = Mosaic2MosaicObjective(pattern="grbg")
    example = objective.hold_out(moved, np.random.default_rng(0))
    differing = find_differing(objective.observe(batch.truth / 255, example), example.target)[
        0, :, 0
    ]
    assert differing[1, 31:45, 31:45].float().mean() > 0.95
    differing[1, 22:54, 22:54] = False
    assert differing.float().mean() < 0.03
    losses = [
        objective.loss(Known(batch.truth), b, np.random.default_rng(0))[0] for b in (batch, moved)
    ]
    assert float(losses[1].detach()) < 1.03 * float(losses[0].detach())


@pytest.mark.parametrize("pattern", ["rggb", "gbrg"])
def test_reading_is_moving_and_then_sampling(pattern):
    def slowly(colours):
        moved = [warp(colours, one[:, 0], "spline") for one in places.unbind(1)]
        return torch.stack([sample_mosaic(frame, pattern) for frame in moved], 1)

    rng = torch.Generator().manual_seed(0)
    colours = torch.rand(2, 3, 20, 24, dtype=torch.float64, generator=rng)
    places = 6 * torch.rand(2, 2, 1, 2, 20, 24, dtype=torch.float64, generator=rng) - 3
    y, x = (torch.from_numpy(v) for v in np.mgrid[:20, :24])
    dx, dy = places.unbind(3)
    inside = ((x + dx - 11.5).abs() < 11) & ((y + dy - 9.5).abs() < 9)
    results = []
    for read in (lambda c: read_mosaics(c, places, pattern), slowly):
        frame = colours.clone().requires_grad_()
        seen = read(frame)
        assert torch.isfinite(seen).all()
        seen[inside].square().sum().backward()
        results += [(seen[inside].detach(), frame.grad)]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("power", [1, 2])
def test_the_loss_has_its_least_at_the_truth(batch, power):
    objective = Mosaic2MosaicObjective(pattern="grbg", power=power)
    losses = [
        float(objective.loss(Known(colours), batch, np.random.default_rng(0))[0].detach())
        for colours in (batch.truth, batch.truth + 6, batch.truth.flip(1))
    ]
    assert losses[0] < 0.95 * losses[1]
    assert losses[0] < 0.8 * losses[2]
    least = SIGMA / 255 * np.sqrt(2 / np.pi) if power == 1 else (SIGMA / 255) ** 2
    assert losses[0] == pytest.approx(least, rel=0.1)


def test_the_network_sees_the_first_view_alone(batch):
    network = Known(batch.truth)
    loss, _ = Mosaic2MosaicObjective(pattern="grbg").loss(network, batch, np.random.default_rng(0))
    loss.backward()
    assert torch.equal(network.seen, batch.views[:, :1] / 255)
    assert torch.isfinite(network.colours.grad).all()
    assert network.colours.grad.abs().sum() > 0


def test_a_frame_is_never_its_own_target(batch):
    for held_out in ((0,), (1, 0), ()):
        with pytest.raises(BadOptionError, match="never view 0"):
            Mosaic2MosaicObjective(held_out=held_out)
    repeated = replace(batch, views=batch.views[:, [0, 1, 0]], flow=batch.flow[:, :3])
    objective = Mosaic2MosaicObjective()
    with pytest.raises(BadInputError, match=r"views 0 and 2 .* the same to the last pixel"):
        objective.hold_out(repeated, np.random.default_rng(0))
    alone = replace(batch, views=batch.views[:, :1], flow=batch.flow[:, :1])
    with pytest.raises(BadInputError, match="bursts of 1 mosaics"):
        objective.hold_out(alone, np.random.default_rng(0))
    with pytest.raises(BadInputError, match="no flow"):
        objective.hold_out(replace(batch, flow=None), np.random.default_rng(0))


def test_supervised_compares_all_colours(batch):
    objective = Mosaic2MosaicObjective(supervised=True, power=2)
    loss, _ = objective.loss(Known(batch.truth + 5), batch, np.random.default_rng(0))
    assert float(loss.detach()) == pytest.approx((5 / 255) ** 2, rel=1e-4)
    with torch.inference_mode():
        score = objective.score(Known(batch.truth + 5), batch)["score"]
    assert score == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)
    with pytest.raises(BadInputError, match="no truth"):
        objective.loss(Known(batch.truth), replace(batch, truth=None), np.random.default_rng(0))


def test_simulated_mosaics_are_of_their_seed():
    source = SimulatedMosaics(size=24, frames=3, noise=(2, 6))
    one, same = (source.draw(np.random.default_rng(1), 2) for _ in range(2))
    assert torch.equal(one.views, same.views)
    assert one.views.shape == (2, 3, 1, 24, 24)
    assert one.flow.shape == (2, 3, 1, 2, 24, 24)
    assert one.truth.shape == (2, 3, 24, 24)


@pytest.fixture(scope="module")
def crops(burst):
    return MosaicCrops(burst.frames, align_mosaics(burst.frames), [0, 1, 2, 4], 32, 2)


def test_crops_lie_where_their_flow_says(burst, crops, smooth):
    """The truth of the seen frame, through the objective, foretells the crops of the others."""
    objective = Mosaic2MosaicObjective(pattern="grbg", border=0)
    rng, apart = np.random.default_rng(0), []
    for seen in range(5):
        order = [seen, *rng.permutation([t for t in range(5) if t != seen])[:3].tolist()]
        window = Window(2 * int(rng.integers(8, 14)), 2 * int(rng.integers(8, 14)), 32, 32)
        batch = crops.crop(order, window)
        truth = torch.from_numpy(burst.truth[seen : seen + 1])[..., *window.slices]
        example = objective.hold_out(batch, rng)
        apart.append(255 * (objective.observe(truth / 255, example) - example.target).flatten())
    apart = torch.cat(apart)
    known = apart[~apart.isnan()]
    assert len(known) > 0.7 * len(apart)
    assert float(known.std()) == pytest.approx(SIGMA, rel=0.1)


def test_a_frame_that_is_held_back_is_never_compared(burst, crops):
    held = {float(v) for v in burst.frames[3].ravel()}
    rng = np.random.default_rng(0)
    for _ in range(5):
        batch = crops.draw(rng, 2)
        assert batch.views.shape == (2, 3, 1, 32, 32)
        compared = {float(v) for v in batch.views[:, 1:].flatten() if torch.isfinite(v)}
        assert len(compared & held) < 0.02 * len(compared)  # floats that happen to be equal
    parted = hold_back(crops, 3)
    for place in [*parted.stop, *parted.decide]:
        target = place.views[:, 1:]
        assert {float(v) for v in target[torch.isfinite(target)]} <= held
        assert torch.isfinite(place.views[:, 0]).all()
    corners = {float(p.views[0, 1][torch.isfinite(p.views[0, 1])][0]) for p in parted.decide}
    assert len(corners) == len(parted.decide)  # no place twice


def test_frames_that_share_nothing_teach_nothing(burst):
    far = BurstFlow(np.array([[0, 0], [200, 0]]), np.zeros((2, 2, 3)), (40.0, 40.0))
    with pytest.raises(BadInputError, match="nowhere do two of 2 mosaics"):
        MosaicCrops(burst.frames[:2], far, None, 32, 1).draw(np.random.default_rng(0), 1)


def write_stack(path, frames):
    shape = {"count": len(frames), "height": frames.shape[1], "width": frames.shape[2]}
    at = rasterio.Affine.translation(10, 10)
    with rasterio.open(path, "w", driver="GTiff", dtype="uint16", transform=at, **shape) as f:
        f.write(np.clip(frames, 0, 255).astype(np.uint16))


def test_own_mosaics_are_read_and_registered(burst, tmp_path):
    write_stack(tmp_path / "raw.tif", burst.frames)
    batch = OwnMosaics(tmp_path / "raw.tif", size=32).draw(np.random.default_rng(0), 2)
    assert batch.views.shape == (2, 5, 1, 32, 32)
    assert torch.isfinite(batch.flow).all()
    write_stack(tmp_path / "noise.tif", np.random.default_rng(0).normal(90, 9, (3, 64, 64)))
    with (
        pytest.warns(L1bsrGeoWarning, match="frames 0 to 2, is left out"),
        pytest.raises(BadInputError, match="no burst of mosaics"),
    ):
        OwnMosaics(tmp_path / "noise.tif").draw(np.random.default_rng(0), 1)
    with pytest.raises(BadOptionError, match="bursts of 1 frames"):
        OwnMosaics(tmp_path / "raw.tif", burst=1)
