"""White noise is told as it is found, correlated noise as what was taken off betrays it."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import nn

from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.registry import Model
from l1bsr_geo.restoration.noise_level import estimate_noise
from l1bsr_geo.restoration.told_noise import settle_noise


class Shrinking(nn.Module):
    """Takes off what differs from a local mean, up to one and a half times the noise it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ModelSpec(name="shrinking", frames=(3, 3), scale=1, halo=4)

    def forward(self, views, flow=None, *, noise=None):
        return self.restore_sequence(views[:, 1], noise)

    def restore_sequence(self, frames, noise=None):
        mean = nn.functional.avg_pool2d(frames, 9, 1, 4, count_include_pad=False)
        detail, most = frames - mean, 1.5 * torch.as_tensor(noise)
        return mean + detail - detail.clamp(-most, most)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_restorer(Shrinking(), "cpu")


def make_noisy(width: int) -> ArrayVideo:
    y, x = np.mgrid[:96, :128]
    clean = 120 + 40 * np.sin(x / 40) + 30 * np.cos(y / 30)
    white = np.random.default_rng(0).normal(0, 20 * width, (6, 1, 96, 128))
    box = uniform_filter(white, (0, 0, width, width))  # a deviation of 20 whatever the width
    return ArrayVideo((clean + box).astype(np.float32))


def test_white_noise_is_told_as_it_is(model):
    video = make_noisy(1)
    noise = estimate_noise(video)
    assert settle_noise(model, video, [range(6)], noise) == noise


def test_of_correlated_noise_more_is_told(model):
    video = make_noisy(3)
    noise = estimate_noise(video)
    found = settle_noise(model, video, [range(6)], noise)
    assert 2 * noise.deviation(120) < found.deviation(120) < 40


def test_where_no_stack_fits_single_frames_decide(model):
    video = make_noisy(3)
    noise = estimate_noise(video)
    assert settle_noise(model, video, [range(2), range(2, 3)], noise) == noise
