"""Videos through Model: windows, single frames, units, sizes, noise, and what is refused."""

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.base import SequenceRestorer
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.models.dsa import DSA
from l1bsr_geo.models.fastdvdnet import FastDVDnet
from l1bsr_geo.models.published import import_weights
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.models.shift_and_add import ShiftAndAdd
from l1bsr_geo.models.shipped import made_views


@pytest.fixture
def network(random_weights):
    def make(kind=FastDVDnet, **options):
        made = kind(width=8, **options).eval()
        made.load_state_dict(random_weights(made, 1.0))
        return made

    return make


def video(*shape, top=1000.0):
    return np.random.default_rng(0).uniform(0, top, shape).astype(np.float32)


@torch.inference_mode()
def expected(network, frames, noise=None):
    gain = network.spec.gain
    told = None if noise is None else torch.from_numpy(np.asarray(noise, np.float32)) / gain
    return network.restore_sequence(torch.from_numpy(frames) / gain, told).numpy() * gain


def test_a_video_in_dn_of_any_size(network):
    own, frames = network(gain=4095.0), video(6, 3, 10, 15)
    assert isinstance(own, SequenceRestorer)
    found = Model.from_restorer(own, device="cpu").restore_sequence(frames)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(own, frames), rtol=0, atol=1e-3 * found.std())


def test_a_frame_is_what_its_window_gives(network):
    model, frames = Model.from_restorer(network(), device="cpu"), video(5, 3, 10, 15)
    one = model.restore(frames[None])
    np.testing.assert_allclose(
        model.restore_sequence(frames)[2:3], one, rtol=0, atol=1e-4 * one.std()
    )


def test_the_noise_is_in_dn_too(network):
    own, frames = network(), video(5, 3, 8, 9, top=255)
    model = Model.from_restorer(own, device="cpu")
    usual = model.restore_sequence(frames)
    close = {"rtol": 0, "atol": 1e-4 * usual.std()}
    np.testing.assert_allclose(model.restore_sequence(frames, 25.0), usual, **close)
    everywhere = video(5, 1, 8, 9, top=50)
    found = model.restore_sequence(frames, everywhere)
    np.testing.assert_allclose(found, expected(own, frames, everywhere), **close)
    assert np.abs(found - usual).max() > 1
    each = np.float32([[[[5]]], [[[10]]], [[[20]]], [[[40]]], [[[80]]]])
    np.testing.assert_allclose(
        model.restore_sequence(frames, each), expected(own, frames, each), **close
    )


def test_single_frames_are_restored_one_by_one(network, monkeypatch):
    monkeypatch.setattr("l1bsr_geo.models.registry._AT_A_TIME", 2 * 9 * 11)
    own, frames = network(DnCNN, channels=1, depth=4), video(5, 2, 9, 11)
    batches = []
    model = Model.from_restorer(own, device="cpu")
    restore = model.restore
    monkeypatch.setattr(model, "restore", lambda v: (batches.append(len(v)), restore(v))[1])
    found = model.restore_sequence(frames, 30.0)
    assert batches == [2, 2, 1]
    alone = np.concatenate([restore(frame[None, None]) for frame in frames])
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-4 * alone.std())
    fine = Model.from_restorer(Geometric(2), device="cpu").restore_sequence(frames)
    assert fine.shape == (5, 2, 18, 22)


@pytest.mark.parametrize("make", [ShiftAndAdd, lambda: DSA(2, width=4, decoder_blocks=1)])
def test_bursts_are_no_videos(make):
    with pytest.raises(BadOptionError, match="the first frame of a burst, not a video"):
        Model.from_restorer(make(), device="cpu").restore_sequence(video(5, 1, 8, 8))


@pytest.mark.parametrize(
    ("shape", "noise", "message"),
    [
        ((5, 3, 8), None, "takes a sequence"),
        ((5, 4, 8, 8), None, "fastdvdnet takes 3 bands; got 4"),
        (
            (5, 3, 8, 8),
            np.ones((4, 1, 8, 8)),
            r"it is one number, or for each pixel \(5, 1, 8, 8\)",
        ),
        ((5, 3, 8, 8), -1.0, "negative or not a number"),
        ((5, 3, 8, 8), np.nan, "negative or not a number"),
    ],
)
def test_what_is_no_video_is_refused(network, shape, noise, message):
    with pytest.raises(BadInputError, match=message):
        Model.from_restorer(network(), device="cpu").restore_sequence(video(*shape), noise)


@pytest.mark.parametrize(
    ("name", "channels", "names"),
    [
        ("dncnn", 3, None),
        ("dncnn-pan", 1, None),
        ("fastdvdnet", 3, "fastdvdnet"),
        ("fastdvdnet-pan", 1, None),
        ("fastdvdnet-mf2f", 3, "mf2f"),
    ],
)
def test_denoisers_by_name(name, channels, names, golden_weights):
    entry = MODELS[name]
    with torch.device("meta"):
        assert entry.make().channels == channels
    assert entry.takes_weights
    assert entry.spec.scale == 1
    if names:
        assert entry.shapes() == {k: v.shape for k, v in golden_weights(names).items()}
        assert entry.weights is not None


@pytest.mark.parametrize("name", ["dncnn", "dncnn-pan", "fastdvdnet", "fastdvdnet-pan", "jdd"])
def test_their_specs_say_what_they_take(name, random_weights):
    restorer = MODELS[name].make(width=8).eval()
    restorer.load_state_dict(random_weights(restorer, 1.0))
    model, spec = Model.from_restorer(restorer, device="cpu"), restorer.spec
    views, _ = made_views(spec, 16)
    bands = 1 if name.endswith("-pan") else 3
    assert model.restore(views).shape == (1, bands, 16, 16)
    assert model.probe_halo() <= spec.halo


@pytest.mark.parametrize(
    ("name", "case"), [("fastdvdnet", "fastdvdnet"), ("fastdvdnet-mf2f", "mf2f")]
)
def test_published_weights_are_imported_and_restore(
    name, case, golden, golden_weights, tmp_path, monkeypatch
):
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.pth"
    torch.save({f"module.{k}": v for k, v in golden_weights(case).items()}, path)
    import_weights(path)  # found by its parameters
    frames, y = golden[f"{case}/x"].reshape(1, 5, 3, 32, 24), golden[f"{case}/y"]
    found = Model(name, device="cpu").restore(255 * frames) / 255
    assert np.abs(found - y).max() < 1e-4 * y.std()
