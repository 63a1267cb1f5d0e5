"""A network of one channel starts where one of three colours is."""

import pytest
import torch

from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.models.fastdvdnet import FastDVDnet
from l1bsr_geo.training.one_channel import to_one_channel


def shapes(network):
    return {name: v.shape for name, v in network.state_dict().items()}


def test_on_grey_images_it_gives_the_mean_over_colours():
    torch.manual_seed(0)
    colour, grey = (DnCNN(channels=n, depth=4, width=8).eval() for n in (3, 1))
    grey.load_state_dict(to_one_channel(colour.state_dict(), shapes(grey)))
    views = torch.rand(2, 1, 1, 16, 20)
    with torch.inference_mode():
        expected = colour(views.expand(-1, -1, 3, -1, -1)).mean(1, keepdim=True)
        torch.testing.assert_close(grey(views), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_each_stage_of_fastdvdnet_does_so_too(bias):
    torch.manual_seed(0)
    colour, grey = (FastDVDnet(channels=n, width=16, bias=bias).eval() for n in (3, 1))
    grey.load_state_dict(to_one_channel(colour.state_dict(), shapes(grey)))
    frames, noise = list(torch.rand(3, 2, 1, 16, 20)), torch.rand(2, 1, 16, 20)
    for of_grey, of_colour in ((grey.temp1, colour.temp1), (grey.temp2, colour.temp2)):
        with torch.inference_mode():
            expected = of_colour([f.expand(-1, 3, -1, -1) for f in frames], noise)
            torch.testing.assert_close(
                of_grey(frames, noise), expected.mean(1, keepdim=True), rtol=1e-4, atol=1e-4
            )


def test_weights_that_fit_already_stay():
    state = DnCNN(channels=3, depth=3, width=3).state_dict()
    for name, value in to_one_channel(state, {k: v.shape for k, v in state.items()}).items():
        assert value is state[name]


def test_weights_of_something_else_are_not_bent():
    state = {"w": torch.zeros(8, 5, 3, 3), "b": torch.zeros(4)}
    expected = {"w": torch.Size([8, 1, 3, 3]), "b": torch.Size([1])}
    assert {k: v.shape for k, v in to_one_channel(state, expected).items()} == {
        "w": torch.Size([8, 5, 3, 3]),
        "b": torch.Size([4]),
    }
