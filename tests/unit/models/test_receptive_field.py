import pytest
import torch
from torch import nn

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.classical import Bicubic, Geometric
from l1bsr_geo.models.rcan import REC
from l1bsr_geo.models.receptive_field import probe_halo
from l1bsr_geo.models.registry import Model


class Convolutions(nn.Module):
    """Every layer adds the pixel above and to the left."""

    def __init__(self, layers, **spec):
        super().__init__()
        self.spec = ModelSpec("convolutions", bands=("B02",), **spec)
        self.layers = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(layers)])
        self.requires_grad_(False)
        for layer in self.layers:
            nn.init.dirac_(layer.weight)[:, :, 0, 0] = 1.0

    def forward(self, views, flow=None):
        fine = nn.functional.interpolate(views[:, 0], scale_factor=self.spec.scale)
        return self.layers(fine)


@pytest.mark.parametrize(
    ("restorer", "radius"),
    [
        (Bicubic(1), 0),
        (Bicubic(2), 2),
        (Geometric(), 8),  # where the spline's filter has fallen to 1 % of a DN
        (Convolutions(3, scale=1, halo=3), 3),
        (Convolutions(4, scale=2, halo=2), 2),
    ],
)
def test_it_finds_the_radius(restorer, radius):
    assert probe_halo(restorer) == radius
    assert restorer.spec.halo >= radius


def test_a_radius_beyond_the_limit_is_at_least_the_limit():
    assert probe_halo(Convolutions(20, scale=1, halo=4)) >= 12
    assert probe_halo(Convolutions(20, scale=1, halo=4), limit=30) == 20


def test_on_a_lattice_the_widest_place_counts():
    class Pooling(nn.Module):
        spec = ModelSpec("pooling", scale=1, halo=4, multiple=4)

        def forward(self, views, flow=None):
            return nn.functional.interpolate(
                nn.functional.max_pool2d(views[:, 0], 4), scale_factor=4
            )

    assert probe_halo(Pooling()) == 3


def test_frozen_channel_attention_fades_inside_the_halo(random_weights):
    rec = REC(groups=2, blocks=2, width=16, reduction=4).eval()
    rec.load_state_dict(random_weights(rec, 0.5))
    assert 2 <= probe_halo(rec, limit=20) <= 13  # of 13 convolutions


def test_a_model_can_be_asked():
    assert Model().probe_halo() == Model().probe_halo() == 8
    assert Model.from_restorer(Geometric(scale=1)).probe_halo() == 0
    assert Model.from_restorer(Convolutions(3, scale=1, halo=3)).probe_halo() == 3
    assert torch.is_grad_enabled()
