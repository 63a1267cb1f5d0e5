import numpy as np
import pytest
import torch

from l1bsr_geo.models.base import SceneRestorer
from l1bsr_geo.models.csr import BandRegistration


@pytest.fixture(scope="module")
def csr(golden_weights):
    restorer = BandRegistration().eval()
    restorer.network.load_state_dict(golden_weights("l1bsr_csr"))
    return restorer


@torch.inference_mode()
def test_it_is_the_published_network(csr, golden):
    x, y = (torch.from_numpy(golden[f"l1bsr_csr/{k}"]) for k in "xy")
    assert sum(p.numel() for p in csr.parameters()) == 4_104_674
    assert (csr.network(x) - y).abs().max() < 1e-4 * y.std()


@torch.inference_mode()
def test_it_registers_as_published(csr, golden):
    image = torch.from_numpy(golden["l1bsr_register/im"])[None, None, :, 0]
    out = csr(image)[0].numpy()
    published = golden["l1bsr_register/out"][:, 0].astype(np.float64)
    wrapped = published > 60000  # overshoot below zero; the published cast wraps, ours clips
    assert 0 < wrapped.sum() < 100
    cut = np.trunc(np.clip(out, 0, None))
    # a value within float rounding of a whole number may be cut to either side
    assert (cut != published)[~wrapped].mean() < 1e-3
    assert np.abs(cut - published)[~wrapped].max() <= 1
    assert (cut[wrapped] == 0).all()
    assert (out[1] == image[0, 0, 1].numpy()).all()


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(1, 1), (17, 40), (48, 33)])
def test_any_size(csr, shape):
    out = csr(torch.rand(1, 1, 4, *shape) * 1000)
    assert out.shape == (1, 4, *shape)
    assert out.isfinite().all()


@torch.inference_mode()
def test_the_reference_does_not_move_and_a_flat_image_is_finite(csr):
    views = torch.full((1, 1, 4, 32, 32), 500.0)
    assert csr.flow(views)[:, 1].abs().max() == 0
    assert csr(views).isfinite().all()


@torch.inference_mode()
def test_an_image_with_its_own_statistics_is_registered_as_without(csr):
    views = torch.rand(1, 1, 4, 48, 32) * 1000
    assert isinstance(csr, SceneRestorer)
    torch.testing.assert_close(csr(views, None, csr.scene_statistics(views)), csr(views))


@torch.inference_mode()
def test_statistics_of_halves_average_to_the_whole(csr):
    views = torch.rand(1, 1, 4, 64, 32) * torch.linspace(100, 1000, 64)[:, None]
    whole = csr.scene_statistics(views)
    top, bottom = (csr.scene_statistics(v) for v in views.split(32, -2))
    for name, value in whole.items():
        torch.testing.assert_close((top[name] + bottom[name]) / 2, value, rtol=1e-3, atol=0)


def test_the_halo_holds_the_receptive_field(csr):
    views = (torch.rand(1, 2, 288, 288)).requires_grad_()
    column = 148  # of the lattice's 16 phases the one with the widest field
    (gradient,) = torch.autograd.grad(csr.network(views)[..., 144, column].sum(), views)
    seen = gradient.abs().amax((0, 1, 2)).nonzero()
    assert 100 < (seen - column).abs().max() <= csr.spec.halo
