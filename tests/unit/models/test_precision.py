"""Half the bits are for convolutions: what finds motion, and what resamples, never has them."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from l1bsr_geo.models.precision import computing, full_precision, takes_bf16
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.models.shipped import made_views

CPU = torch.device("cpu")
EXACT = ("csr", "csr-hourglass", "fnet")  # they find motion
CLASSICAL = ("geometric", "bicubic", "shift-and-add", "act")

GEOMETRY = (
    "grid_sampler",
    "index_add",
    "index_select",
    "embedding_bag",
    "floor",
    "upsample_bilinear",
    "cumsum",
)
"""Operators that read, move or place pixels."""


class Watching(TorchDispatchMode):
    """Notes which operators were given numbers of half the bits."""

    def __init__(self):
        super().__init__()
        self.seen, self.half = set(), set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.seen.add(name)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if any(t.dtype == torch.bfloat16 for t in given):
            self.half.add(name)
        return function(*args, **(kwargs or {}))


def built(name, **options):
    torch.manual_seed(0)
    return MODELS[name].make(**options).eval().requires_grad_(False)


@pytest.mark.parametrize("name", MODELS)
def test_who_takes_half_the_bits(name):
    with torch.device("meta"):
        assert takes_bf16(MODELS[name].make()) == (name not in (*EXACT, *CLASSICAL))


@pytest.mark.parametrize(
    ("name", "options", "given"),
    [
        ("l1bsr", {"width": 8, "blocks": 1}, True),
        ("dsa", {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1}, True),
        ("dsa", {"scale": 3, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}, True),
        ("hdr-dsp", {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1}, True),
        ("hdr-dsp", {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1}, False),
        ("l1bsr-rcan", {"groups": 1, "blocks": 1, "width": 16, "reduction": 4}, False),
    ],
)
def test_geometry_has_all_bits(name, options, given):
    """With the motion given, or estimated by the network itself."""
    restorer = built(name, **options)
    views, flow = (torch.from_numpy(v) for v in made_views(restorer.spec, 48))
    watching = Watching()
    with torch.inference_mode(), computing("bf16", CPU), watching:
        restored = restorer(views / restorer.spec.gain, flow if given else None)
    assert restored.dtype == torch.float32
    assert any(n.startswith("conv") for n in watching.half)
    moving = {n for n in watching.seen if n.startswith(GEOMETRY)}
    assert moving or name == "l1bsr-rcan"
    assert not moving & watching.half


@pytest.mark.parametrize("name", ["csr", "csr-hourglass"])
def test_registration_has_all_bits_whatever_is_asked_for(name):
    restorer = built(name)
    views, _ = made_views(restorer.spec, 48)
    watching = Watching()
    with torch.inference_mode(), computing("bf16", CPU), watching:
        restorer(torch.from_numpy(views))
    assert not watching.half
    assert Model.from_restorer(restorer, precision="bf16").precision == "fp32"


def test_inside_full_precision_nothing_is_converted():
    x = torch.ones(1, 1, 4, 4)
    with computing("bf16", CPU):
        assert torch.nn.functional.conv2d(x, x).dtype == torch.bfloat16
        with full_precision():
            assert torch.nn.functional.conv2d(x, x).dtype == torch.float32
        assert torch.nn.functional.conv2d(x, x).dtype == torch.bfloat16
    with computing("auto", CPU):
        assert torch.nn.functional.conv2d(x, x).dtype == torch.float32


def test_a_bright_offset_costs_no_bits():
    """REC's image passes by its body: bf16 is as good at 4000 DN as at 400."""
    rec = built("l1bsr-rcan", groups=2, blocks=2)
    for group in rec.body[:-1]:  # what it learnt is small beside the image, as in trained networks
        group.body[-1].weight.data *= 0.05
        group.body[-1].bias.data *= 0.05
    rec.body[-1].weight.data *= 0.05
    half, exact = (Model.from_restorer(rec, "cpu", p) for p in ("bf16", "fp32"))
    texture = np.random.default_rng(0).normal(0, 50, (1, 1, 4, 32, 32)).astype(np.float32)

    def error(level):
        return float(
            np.sqrt(np.mean((half.restore(texture + level) - exact.restore(texture + level)) ** 2))
        )

    scale = exact.restore(texture + 400).std()
    assert error(4000) < 0.02 * scale
