"""The networks of bursts: DSA, HDR-DSP and its variants."""

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import L1bsrGeoWarning
from l1bsr_geo.models.base import BurstRestorer, EncodingRestorer
from l1bsr_geo.models.burst import blur, enlarge_centred
from l1bsr_geo.models.burst_network import Decoder, Encoder, FrameFlow
from l1bsr_geo.models.checkpoint import read_checkpoint
from l1bsr_geo.models.dsa import DSA
from l1bsr_geo.models.hdr_dsp import HDRDSP, FrameRegistration, HDRDSPSingle
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.ops.splat import splat
from l1bsr_geo.ops.warp import warp

NETWORKS = [DSA, HDRDSP, HDRDSPSingle]


@pytest.fixture(params=NETWORKS)
def network(request, random_weights):
    made = request.param().eval()
    made.load_state_dict(random_weights(made, 0.7))
    return made


def burst(frames=4, height=18, width=20, seed=0):
    """Views (1, T, 1, H, W) and a smooth flow with them."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.rand(1, frames, 1, height, width, generator=generator)
    flow = 2 * torch.rand(1, frames, 1, 2, 1, 1, generator=generator) - 1
    flow[:, 0] = 0
    return views, flow.expand(-1, -1, -1, -1, height, width).clone()


@pytest.mark.parametrize(
    ("case", "make"),
    [
        ("hdrdsp_fnet", FrameFlow),
        ("hdrdsp_encoder1", lambda: Encoder(1)),
        ("hdrdsp_encoder2", lambda: Encoder(2)),
        ("hdrdsp_decoder65", lambda: Decoder(65)),
        ("hdrdsp_decoder193", lambda: Decoder(193)),
    ],
)
@torch.inference_mode()
def test_the_parts_are_the_published_ones(golden, golden_weights, tmp_path, case, make):
    torch.save({"state_dict": golden_weights(case)}, tmp_path / "x.pth.tar")
    part = make().eval()
    part.load_state_dict(read_checkpoint(tmp_path / "x.pth.tar"))
    x, y = (torch.from_numpy(golden[f"{case}/{k}"]) for k in "xy")
    assert (part(x) - y).abs().max() < 1e-4 * y.std()


def container(golden_weights, encoder="hdrdsp_encoder2"):
    """A checkpoint as the authors save it: epoch, networks and optimizers side by side."""
    parts = {"De": "hdrdsp_decoder193", "En": encoder, "F": "hdrdsp_fnet"}
    names = {"De": "Decoder", "En": "Encoder", "F": "Fnet"}
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}
    saved = {"epoch": 1700}
    for key, part in parts.items():
        saved[f"state_dict{names[key]}"] = golden_weights(part)
        saved[f"optimizer{names[key]}"] = {"state": {0: moments}, "param_groups": [{"lr": 1e-4}]}
    return saved


@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"models": {"all": s}, "epoch": 3}])
@torch.inference_mode()
def test_published_checkpoints_load(golden, golden_weights, tmp_path, nest):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(nest(container(golden_weights)), path)
    model = Model("hdr-dsp", weights=path)
    assert model.licence is None  # not known to be the published file
    network = HDRDSP()
    network.load_state_dict(read_checkpoint(path, MODELS["hdr-dsp"].shapes()))
    x, y = (torch.from_numpy(golden[f"hdrdsp_fnet/{k}"]) for k in "xy")
    assert (network.fnet(x) - y).abs().max() < 1e-4 * y.std()
    views, flow = (v.numpy() for v in burst())
    ours = network.eval()(*(torch.from_numpy(v) for v in (views, flow)))
    np.testing.assert_allclose(model.restore(3400 * views, flow) / 3400, ours, atol=1e-3)


@torch.inference_mode()
def test_streaming_is_the_formula_for_the_whole_stack(network):
    """Feature shift-and-pool, written out for all frames at once."""
    views, flow = burst()
    ratios = torch.tensor([[1.0, 2.0, 0.5, 1.0]])
    frames = views[0]
    radiance = frames / ratios[0].view(4, 1, 1, 1)
    base = blur(radiance)
    seen = radiance - base if network.base == "detail" else radiance
    seen = torch.cat([seen, frames], 1) if network.noise_aware else seen
    added, weight = splat(network.encoder(seen), -flow[0, :, 0], 2)
    total = weight.sum(0, keepdim=True)
    total = torch.where(total == 0, 1, total)
    statistics = {"avg": added.sum(0) / total[0], "max": added.amax(0), "std": added.std(0)}
    features = torch.cat([*(statistics[k] for k in network.pooling), total[0] / 15])[None]
    expected = network.decoder(features)
    if network.base == "detail":
        aligned = warp(base, flow[0, :, 0]) * ratios[0].view(4, 1, 1, 1)
        expected = expected + enlarge_centred(aligned.sum(0, keepdim=True) / ratios.sum(), 2)
    found = network(views, flow, exposures=3 * ratios)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_memory_does_not_grow_with_the_frames(network, live_memory):
    streamed, kept = [], []
    for frames in (5, 30):
        views, flow = burst(frames)
        with live_memory() as memory:
            network(views, flow)
        streamed.append(memory.peak)
        with live_memory() as memory:
            network.encode_frames(views)
        kept.append(memory.peak)
    assert streamed[1] < 1.05 * streamed[0]
    assert kept[1] > 3 * kept[0]  # it would have been seen


@torch.inference_mode()
def test_references_share_the_encodings(network):
    views, flow = burst(5)
    seen = []
    network.encoder.register_forward_hook(lambda *_: seen.append(1))
    exposures = torch.tensor([[1.0, 2, 1, 0.5, 1]])
    several = network.restore_references(views, flow, [0, 2, 4], exposures=exposures)
    assert len(seen) == 5
    alone = network(views, flow, exposures=exposures)
    torch.testing.assert_close(several[0], alone)
    # frame 2 as the reference of the same burst, put first; its exposure is the unit then
    order = [2, 0, 1, 3, 4]
    turned = network(
        views[:, order] / 1, (flow - flow[:, [2]])[:, order], exposures=exposures[:, order]
    )
    torch.testing.assert_close(several[1], turned, atol=1e-4, rtol=1e-4)
    frames = network.encode_frames(views, exposures)
    torch.testing.assert_close(network.fuse_frames(frames, flow[:, :, 0])[:, None], alone)


@torch.inference_mode()
def test_the_order_of_the_other_frames_does_not_matter(network):
    views, flow = burst(5)
    order = [0, 3, 1, 4, 2]
    torch.testing.assert_close(
        network(views[:, order], flow[:, order]), network(views, flow), atol=1e-5, rtol=1e-4
    )


@torch.inference_mode()
def test_what_a_frame_lacks_adds_nothing(network):
    views, flow = burst(4)
    hidden = views.clone()
    hidden[:, 3] = torch.nan  # a frame without any data might as well not be there
    torch.testing.assert_close(network(hidden, flow), network(views[:, :3], flow[:, :3]))
    hidden = views.clone()
    hidden[:, 2, :, :, 14:] = torch.nan
    out = network(hidden, flow)
    assert out.isfinite().all()
    assert (out - network(views, flow)).abs().max() > 1e-3


@torch.inference_mode()
def test_sizes_scales_bands_and_single_frames():
    for scale in (2, 3):
        restorer = HDRDSP(scale=scale).eval()
        assert isinstance(restorer, BurstRestorer)
        assert isinstance(restorer, EncodingRestorer)
        out = restorer(torch.rand(2, 1, 3, 9, 11))
        assert out.shape == (2, 3, 9 * scale, 11 * scale)
        assert out.isfinite().all()


@torch.inference_mode()
def test_without_a_flow_it_is_estimated(network):
    views, _ = burst(3)
    motion = network.fnet.estimate(views[:, 1], views[:, 0])
    zero = torch.zeros_like(motion)
    flow = [zero, *(invert_flow(network.fnet.estimate(views[:, t], views[:, 0])) for t in (1, 2))]
    given = network(views, torch.stack(flow, 1)[:, :, None])
    # the inverse of an inverse, of a flow that is not smooth: close, not equal
    assert motion.abs().max() > 0.1
    found = network(views)
    assert (found - given).square().mean() < 0.2 * given.var()
    assert not torch.equal(found, network(views, torch.zeros(1, 3, 1, 2, 18, 20)))


@torch.inference_mode()
def test_a_constant_scene_of_all_exposures_stays_constant(random_weights):
    network = HDRDSP().eval()
    network.load_state_dict(random_weights(network))
    network.decoder.outputConv.weight.zero_()
    network.decoder.outputConv.bias.zero_()  # the base alone: exposures are its business
    ratios = torch.tensor([[2.0, 1.0, 8.0, 0.5]])
    _, flow = burst()
    views = 100 * ratios.view(1, 4, 1, 1, 1).expand(1, 4, 1, 18, 20)
    out = network(views, flow, exposures=ratios)
    torch.testing.assert_close(out, torch.full_like(out, 200.0))


def test_all_that_is_trained_gets_gradients():
    network = HDRDSP()
    views, _ = burst(3, 16, 16)
    network(views, exposures=torch.tensor([[1.0, 2, 4]])).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_motion_beyond_the_halo_is_told():
    views, flow = burst(2)
    with pytest.warns(L1bsrGeoWarning, match=r"up to 9\.0 px"), torch.inference_mode():
        DSA().eval()(views, torch.where(flow == 0, flow, 9.0))


@torch.inference_mode()
def test_fnet_by_itself_averages_what_it_aligns(random_weights):
    registration = FrameRegistration().eval()
    views, _ = burst(3, 16, 24)
    torch.nn.init.zeros_(registration.network.conv2.weight)
    torch.nn.init.zeros_(registration.network.conv2.bias)  # no motion: a plain weighted mean
    out = registration(views, exposures=torch.tensor([[1.0, 1, 2]]))
    expected = (views[:, 0] + views[:, 1] + views[:, 2]) / 4
    torch.testing.assert_close(out, expected)
