"""JDD: every phase of the pattern, what it adds to, sizes, tiles."""

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.jdd import JDD
from l1bsr_geo.models.receptive_field import probe_halo
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.ops.mosaic import demosaick_bilinear, sample_mosaic

PATTERNS = ("rggb", "grbg", "gbrg", "bggr")  # as seen from (0, 0), (0, 1), (1, 0), (1, 1)


@pytest.fixture
def small(random_weights):
    def make(**options):
        network = JDD(**{"depth": 4, "width": 8, **options}).eval()
        network.load_state_dict(random_weights(network, 1.0))
        return network

    return make


@torch.inference_mode()
def test_it_adds_to_a_bilinear_demosaicking(small):
    network, rgb = small(), torch.rand(2, 3, 12, 10)
    mosaic = sample_mosaic(rgb, "rggb")
    assert isinstance(network, Restorer)
    for value in network.full[-1].parameters():
        value.zero_()
    torch.testing.assert_close(network(mosaic[:, None]), demosaick_bilinear(mosaic, "rggb"))


@pytest.mark.parametrize(("phase", "pattern"), list(enumerate(PATTERNS)))
@torch.inference_mode()
def test_the_same_pixels_at_any_phase(phase, pattern, small):
    network, (row, column) = small(), divmod(phase, 2)
    mosaic = torch.rand(1, 1, 1, 40, 42)
    whole = network(mosaic)
    network.pattern = pattern
    part = network(mosaic[..., row:, column:])
    far = network.spec.halo  # the border is another one
    inner = (..., slice(far, -far), slice(far, -far))
    torch.testing.assert_close(part[inner], whole[..., row:, column:][inner])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(2, 2), (7, 8), (8, 7), (9, 9), (2, 3)])
@torch.inference_mode()
def test_any_size_at_any_phase(pattern, size, small):
    restored = small(pattern=pattern)(torch.rand(1, 1, 1, *size))
    assert restored.shape == (1, 3, *size)
    assert restored.isfinite().all()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(9, 11), (10, 11), (9, 12)])
def test_made_even_every_colour_keeps_its_place(pattern, size, small):
    network = small(pattern=pattern, gain=1000.0)
    with torch.no_grad():
        for value in network.full[-1].parameters():
            value.zero_()
    colours = torch.tensor([700.0, 200.0, 50.0]).reshape(1, 3, 1, 1).expand(1, 3, *size)
    mosaic = sample_mosaic(colours, pattern)[0].numpy()
    model = Model.from_restorer(network, device="cpu")
    np.testing.assert_allclose(model.restore(mosaic[None, None]), colours, rtol=1e-5)
    video = np.stack([mosaic, 0.5 * mosaic])
    restored = model.restore_sequence(video)
    np.testing.assert_allclose(restored[1:], 0.5 * colours, rtol=1e-5)


def test_it_looks_as_far_as_it_says(small):
    network = small()
    assert network.spec.halo == 10
    assert 6 <= probe_halo(network, tolerance=1e-4) <= 10
    assert MODELS["jdd"].spec.halo == 32
    assert MODELS["jdd"].spec.result_bands == ("red", "green", "blue")


def test_what_is_no_mosaic_is_refused(small):
    with pytest.raises(BadInputError, match=r"takes mosaics .* got \(1, 1, 3, 8, 8\)"):
        small()(torch.rand(1, 1, 3, 8, 8))
    with pytest.raises(BadInputError, match="2 px or more"):
        small()(torch.rand(1, 1, 1, 1, 8))
    with pytest.raises(BadInputError, match=r"takes 1 bands \(mosaic\)"):
        Model.from_restorer(small(), device="cpu").restore(np.ones((1, 1, 3, 8, 8), np.float32))
    with pytest.raises(BadOptionError, match="pattern is 'xtrans'"):
        JDD(pattern="xtrans")
    with pytest.raises(BadOptionError, match="2 or more"):
        JDD(depth=1)
