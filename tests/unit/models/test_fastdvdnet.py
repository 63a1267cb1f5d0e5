"""FastDVDnet: the published network, windows and sequences, what it is told of the noise."""

import pytest
import torch

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.fastdvdnet import FastDVDnet, mirror
from l1bsr_geo.models.receptive_field import probe_halo


@pytest.fixture
def small(random_weights):
    def make(channels=3, **options):
        network = FastDVDnet(channels, width=8, **options).eval()
        network.load_state_dict(random_weights(network, 1.0))
        return network

    return make


def windows(frames):
    """(N, 5, C, H, W): every frame with its neighbours, mirrored at the ends."""
    last = len(frames) - 1
    places = [[abs(t + k) for k in range(-2, 3)] for t in range(len(frames))]
    return torch.stack([frames[[min(p, 2 * last - p) for p in window]] for window in places])


@pytest.mark.parametrize(
    ("case", "bias", "parameters"),
    [("fastdvdnet", False, 2_479_096), ("mf2f", True, 2_482_098)],
)
@torch.inference_mode()
def test_it_is_the_published_network(case, bias, parameters, golden, golden_weights):
    network = FastDVDnet(bias=bias).eval()
    network.load_state_dict(golden_weights(case))  # strict: every name is the same
    x, noise, y = (torch.from_numpy(golden[f"{case}/{k}"]) for k in ("x", "noise_map", "y"))
    views = x.unflatten(1, (5, 3))
    assert (network(views, noise=noise) - y).abs().max() < 1e-4 * y.std()
    assert (network(views) - y).abs().max() < 1e-4 * y.std()  # 25 / 255 is what is usual
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_it_keeps_the_contract(small):
    network = small()
    assert isinstance(network, Restorer)
    assert network.spec.frames == (5, 5)
    assert network.spec.scale == 1
    with pytest.raises(BadInputError, match="takes 5 frames; got 3"):
        network(torch.rand(1, 3, 3, 8, 8))
    with pytest.raises(BadInputError, match="takes 3 bands at once; got 4"):
        network(torch.rand(1, 5, 4, 8, 8))


@pytest.mark.parametrize("together", [1, 3 * 3 * 16 * 20, 1 << 17])
@pytest.mark.parametrize("channels", [1, 3])
@torch.inference_mode()
def test_a_sequence_is_restored_as_its_windows_are(channels, together, small, monkeypatch):
    monkeypatch.setattr("l1bsr_geo.models.fastdvdnet._TOGETHER", together)
    network, frames = small(channels), torch.rand(7, 3, 13, 18)
    noise = 0.05 + 0.1 * torch.rand(7, 1, 13, 18)
    for told in (None, noise[:1, :, :1, :1], noise):
        roles = None if told is None else windows(told.expand(7, -1, -1, -1))[:, 1:4, 0]
        whole = network.restore_sequence(frames, told)
        assert whole.shape == frames.shape
        torch.testing.assert_close(
            whole, network(windows(frames), noise=roles), rtol=0, atol=1e-5 * float(whole.std())
        )


@torch.inference_mode()
def test_a_sequence_costs_two_u_nets_a_frame(small, monkeypatch):
    monkeypatch.setattr("l1bsr_geo.models.fastdvdnet._TOGETHER", 1)
    network, calls = small(), []
    for stage in (network.temp1, network.temp2):
        stage.register_forward_hook(lambda stage, *_: calls.append(stage))
    network.restore_sequence(torch.rand(9, 3, 8, 8))
    assert calls.count(network.temp1) == 9 + 2  # one beyond either end
    assert calls.count(network.temp2) == 9


def test_beyond_the_ends_frames_are_mirrored():
    assert [mirror(t, 4) for t in range(-4, 8)] == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert [mirror(t, 2) for t in range(-2, 4)] == [0, 1, 0, 1, 0, 1]
    assert {mirror(t, 1) for t in range(-2, 3)} == {0}


@pytest.mark.parametrize("count", [1, 2, 3])
@torch.inference_mode()
def test_a_sequence_may_be_shorter_than_a_window(count, small):
    network, frames = small(), torch.rand(count, 3, 8, 8)
    window = frames[[mirror(t, count) for t in range(-2, 3)]]
    torch.testing.assert_close(network.restore_sequence(frames)[:1], network(window[None]))


@torch.inference_mode()
def test_each_first_stage_may_be_told_its_own_noise(small):
    network, views = small(), torch.rand(1, 5, 3, 8, 12)
    roles = torch.tensor([0.05, 0.1, 0.2]).reshape(1, 3, 1, 1).expand(1, 3, 8, 12)
    frames, told = views.unbind(1), roles.split(1, 1)
    first = [network.temp1(frames[k : k + 3], told[k]) for k in range(3)]
    torch.testing.assert_close(network(views, noise=roles), network.temp2(first, told[1]))
    alike = network(views, noise=told[1])
    torch.testing.assert_close(alike, network(views, noise=told[1].expand(1, 3, 8, 12)))
    assert (alike - network(views, noise=roles)).abs().max() > 1e-3


@torch.inference_mode()
def test_one_channel_restores_any_bands_one_by_one(small):
    network, views = small(1), torch.rand(2, 5, 4, 8, 12)
    noise = 0.2 * torch.rand(2, 1, 8, 12)
    alone = torch.cat([network(views[:, :, c : c + 1], noise=noise) for c in range(4)], 1)
    torch.testing.assert_close(network(views, noise=noise), alone)


@torch.inference_mode()
def test_any_size_is_reflected_to_the_lattice(small):
    network, views = small(), torch.rand(1, 5, 3, 10, 15)
    noise = 0.2 * torch.rand(1, 1, 10, 15)
    larger, told = (torch.cat([v, v[..., [-2, -3], :]], -2) for v in (views, noise))
    larger, told = (torch.cat([v, v[..., [-2]]], -1) for v in (larger, told))
    assert larger.shape[-2:] == (12, 16)
    torch.testing.assert_close(
        network(views, noise=noise), network(larger, noise=told)[..., :10, :15]
    )
    assert network(torch.rand(1, 5, 3, 1, 2)).shape == (1, 3, 1, 2)  # too small to be reflected


@torch.inference_mode()
def test_its_result_is_local(small):
    network = small(1)
    halo = network.spec.halo
    assert probe_halo(network, tolerance=1e-4) <= halo
    views = torch.rand(1, 5, 1, 4, 2 * halo + 4)
    other = views.clone()
    other[..., halo + 3] += 100
    touched = (network(other) - network(views))[0, 0].abs().amax(0).nonzero()
    assert touched.min() >= 3
    assert touched.max() <= 2 * halo + 3


@torch.inference_mode()
def test_half_precision_costs_little_of_the_noise(golden, golden_weights):
    network = FastDVDnet().eval()
    network.load_state_dict(golden_weights("fastdvdnet"))
    views = torch.from_numpy(golden["fastdvdnet/x"]).unflatten(1, (5, 3))
    exact = network(views)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = network(views)
    assert coarse.dtype == torch.float32
    removed = (exact - views[:, 2]).square().mean().sqrt()
    assert (coarse - exact).square().mean().sqrt() < 0.02 * removed
