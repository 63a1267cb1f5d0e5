import dataclasses

import pytest
import torch

from l1bsr_geo.models.base import Restorer, SceneRestorer
from l1bsr_geo.models.rcan import REC


@pytest.fixture(scope="module")
def rec(golden_weights):
    network = REC().eval()
    network.load_state_dict(golden_weights("l1bsr_rec", 0.35))  # strict: every name is the same
    return network


@pytest.fixture
def small(random_weights):
    network = REC(groups=2, blocks=2, width=16, reduction=4).eval()
    network.load_state_dict(random_weights(network, 0.7))
    return network


@torch.inference_mode()
def test_it_is_the_published_network(rec, golden):
    x, y = (torch.from_numpy(golden[f"l1bsr_rec/{k}"]) for k in "xy")
    assert sum(p.numel() for p in rec.parameters()) == 15_445_796
    assert (rec(x[:, None]) - y).abs().max() < 1e-4 * y.std()


@torch.inference_mode()
def test_an_image_with_its_own_statistics_is_restored_as_without(small):
    views = torch.rand(1, 1, 4, 20, 24)
    statistics = small.scene_statistics(views)
    assert statistics["pooled"].shape == (2, 2, 16)
    torch.testing.assert_close(small(views, None, statistics), small(views))


@torch.inference_mode()
def test_frozen_statistics_make_the_receptive_field_finite(small):
    views = torch.rand(1, 1, 4, 12, 64)
    other = views.clone()
    other[..., -1] += 1
    statistics = small.scene_statistics(views)
    change = small(other, None, statistics) - small(views, None, statistics)
    near, far = change[..., -8:], change[..., :60]  # 13 convolutions: 13 px, 26 fine ones
    assert near.abs().max() > 1e-3
    assert far.abs().max() < 1e-6
    assert (small(other) - small(views))[..., :60].abs().max() > 1e-6


@torch.inference_mode()
def test_statistics_of_two_images_are_the_mean(small):
    one, two = torch.rand(2, 1, 1, 4, 10, 10)
    pooled = [small.scene_statistics(v)["pooled"] for v in (one, two, torch.cat([one, two]))]
    torch.testing.assert_close((pooled[0] + pooled[1]) / 2, pooled[2])


def test_it_keeps_the_contract(small):
    assert isinstance(small, Restorer)
    assert isinstance(small, SceneRestorer)
    assert small.spec.scene_statistics
    assert dataclasses.asdict(small.spec)["gain"] == 400


@torch.inference_mode()
def test_tiles_meet_at_the_default_halo(rec, golden):
    # impulse in frozen statistics; the table in the module holds the whole measurement
    halo = rec.spec.halo
    views = torch.from_numpy(golden["l1bsr_rec/x"])[:, None].repeat(1, 1, 1, 4, 4)
    statistics = rec.scene_statistics(views[..., :24, :20])
    whole = rec(views, None, statistics)
    tile = rec(views[..., : 40 + halo, : 40 + halo], None, statistics)
    seam = 400 * (tile - whole[..., : 2 * (40 + halo), : 2 * (40 + halo)])[..., :80, :80]
    assert seam.abs().max() < 0.5
