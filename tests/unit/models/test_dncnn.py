"""DnCNN: the published layout, bands one by one, how far it looks."""

import pytest
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.models.fastdvdnet import FastDVDnet
from l1bsr_geo.models.receptive_field import probe_halo


@pytest.fixture
def small(random_weights):
    def make(channels=3, **options):
        network = DnCNN(channels, **{"depth": 5, "width": 8, **options}).eval()
        network.load_state_dict(random_weights(network, 1.0))
        return network

    return make


def test_it_has_the_published_layout():
    state = DnCNN(channels=1).state_dict()
    convolutions = {k: tuple(v.shape) for k, v in state.items() if v.ndim == 4}
    inner = {f"dncnn.{3 * k + 2}.weight": (64, 64, 3, 3) for k in range(15)}
    ends = {"dncnn.0.weight": (64, 1, 3, 3), "dncnn.47.weight": (1, 64, 3, 3)}
    assert convolutions == inner | ends
    assert len(state) == 17 + 15 * 5  # no biases beyond those of the 15 normalisations
    assert state["dncnn.3.running_var"].shape == (64,)


@torch.inference_mode()
def test_it_takes_the_noise_away_that_it_finds(small):
    network, views = small(), torch.rand(2, 1, 3, 9, 11)
    assert isinstance(network, Restorer)
    noise = network.dncnn(views[:, 0])
    assert noise.std() > 0.01
    torch.testing.assert_close(network(views), views[:, 0] - noise)


@torch.inference_mode()
def test_one_channel_restores_any_bands_one_by_one(small):
    network, views = small(1), torch.rand(2, 1, 4, 9, 11)
    alone = torch.cat([network(views[:, :, c : c + 1]) for c in range(4)], 1)
    torch.testing.assert_close(network(views), alone)
    with pytest.raises(BadInputError, match="takes 3 bands at once; got 4"):
        small(3)(views)


def test_it_looks_as_far_as_its_convolutions(small):
    assert probe_halo(small(1)) == small(1).spec.halo == 5
    with pytest.raises(BadOptionError, match="2 or more"):
        DnCNN(depth=1)


@torch.inference_mode()
def test_statistics_are_frozen_once_it_is_trained(small):
    network, views = small(), torch.rand(4, 1, 3, 8, 8)
    torch.testing.assert_close(network(views)[:1], network(views[:1]))
    network.train()
    assert (network(views)[:1] - network(views[:1])).abs().max() > 1e-3


@pytest.mark.parametrize(("build", "frames"), [(DnCNN, 1), (FastDVDnet, 5)])
def test_an_untrained_network_starts_near_what_it_sees(build, frames):
    torch.manual_seed(0)
    network, views = build(width=16), torch.rand(2, frames, 3, 32, 32)
    with torch.no_grad():
        change = network.train()(views) - views[:, frames // 2]
    assert 1e-4 < change.std() < 0.3
