"""A video whose truth is known, and networks that learn on it in no time."""

import numpy as np
import torch
from torch import nn

from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.fastdvdnet import FastDVDnet


def network(seed=0):
    """A small FastDVDnet, untrained."""
    torch.manual_seed(seed)
    return FastDVDnet(width=4)


def moving_video(frames=12, noise=20.0, side=32, seed=0):
    """A smooth scene that moves by a pixel a frame: noisy, and without noise."""
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=(3, side, side + frames))
    for axis in (1, 2):  # smooth by repeated averages
        for _ in range(30):
            wide = (wide + np.roll(wide, 1, axis)) / 2
    wide = 128 + 50 * wide / wide.std()
    clean = np.stack([wide[..., frames - t : frames - t + side] for t in range(frames)])
    clean = clean.astype("f4")
    noisy = clean + noise * rng.normal(size=clean.shape).astype("f4")
    return ArrayVideo(noisy), ArrayVideo(clean)


class Blends(nn.Module):
    """The reference and its blurred self, in shares that are learnt."""

    spec = ModelSpec("blends", frames=(5, 5), halo=1, gain=255)

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, views, flow=None, *, noise=None):
        sharp = views[:, views.shape[1] // 2]
        blurred = nn.functional.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
        return sharp + self.share * (blurred - sharp)
