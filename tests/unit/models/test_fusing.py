"""Convolutions that rectify: the same network, faster."""

import copy

import pytest
import torch
from torch import nn

from l1bsr_geo.models.entries import MODELS
from l1bsr_geo.models.fusing import RectifiedConvolution, fuse_rectifiers


def fused(network):
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    fuse_rectifiers(copied)
    return copied


def count(network):
    return sum(isinstance(m, RectifiedConvolution) for m in network.modules())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pixels_are_the_same(bias, precision):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(4, 16, 3, padding=1, bias=bias), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4, bias=bias), nn.ReLU(inplace=True),
        nn.Conv2d(16, 8, 3, stride=2, bias=bias),
    ).eval().requires_grad_(False)  # fmt: skip
    quick = fused(network)
    assert count(quick) == 2
    for shape in ((1, 4, 33, 40), (3, 4, 8, 64)):
        x = torch.randn(shape)
        before = x.clone()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            torch.testing.assert_close(quick(x), network(x), rtol=1e-6, atol=1e-6)
        assert torch.equal(x, before)


def test_what_is_not_a_plain_pair_stays():
    watched = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())
    watched[0].register_forward_hook(lambda *_: None)
    left_alone = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 1, 3, padding="same"), nn.ReLU()),
        nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.LeakyReLU()),
        watched,
    )
    assert count(fused(left_alone)) == 0


def test_rec_is_the_same():
    restorer = MODELS["l1bsr-rcan"].make(width=16, groups=1, blocks=2)
    with torch.no_grad():
        views = torch.rand(1, 1, 4, 24, 20)
        quick = fused(restorer)
        assert count(quick)
        torch.testing.assert_close(quick(views), restorer.eval()(views), rtol=1e-5, atol=1e-5)
