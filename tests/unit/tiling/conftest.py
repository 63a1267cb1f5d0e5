"""Small scenes and small models that tiling is tried on."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandScene, BandStack
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.registry import Model


@dataclass(frozen=True)
class ArraySource:
    """One band in memory; remembers the windows that were read."""

    pixels: np.ndarray
    reads: list = field(default_factory=list)

    @property
    def shape(self):
        return self.pixels.shape

    @property
    def dtype(self):
        return self.pixels.dtype

    def read(self, window):
        self.reads.append(window)
        return self.pixels[window.slices]


class Convolutions(nn.Module):
    """Random 3 x 3 convolutions and a pixel shuffle: a finite receptive field, any scale."""

    def __init__(self, layers=3, **spec):
        super().__init__()
        spec = {
            "name": "convolutions",
            "bands": ("B02", "B03"),
            "halo": layers,
            "gain": 500.0,
        } | spec
        self.spec = ModelSpec(**spec)
        torch.manual_seed(1)
        widths = [2, *[6] * (layers - 1), 2 * self.spec.scale**2]
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths))

    def forward(self, views, flow=None):
        x = views[:, 0]
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        y = nn.functional.pixel_shuffle(self.layers[-1](x), self.spec.scale)
        return y + nn.functional.interpolate(views[:, 0], scale_factor=self.spec.scale)


class Strided(Convolutions):
    """As above, at half the resolution in between: its result depends on where tiles begin."""

    def __init__(self, **spec):
        super().__init__(layers=2, name="strided", halo=6, multiple=2, **spec)

    def forward(self, views, flow=None):
        half = nn.functional.max_pool2d(views[:, 0], 2)
        return nn.functional.interpolate(super().forward(half[:, None]), scale_factor=2)


class Bicubic(nn.Module):
    """Bicubic interpolation, and the motion where there is one: what nodata could bleed through."""

    def __init__(self, flow=False, halo=8):
        super().__init__()
        self.spec = ModelSpec("cubic", halo=halo, flow=flow)

    def forward(self, views, flow=None):
        x = views[:, 0]
        height, width = x.shape[-2:]
        y, x_ = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        if flow is not None:
            at = torch.stack([x_, y]) + flow[:, 0]  # (B, C, 2, H, W)
            size = torch.tensor([width, height]).reshape(2, 1, 1)
            at = ((2 * at + 1) / size - 1).movedim(2, -1).flatten(0, 1)
            bands = x.flatten(0, 1)[:, None]
            moved = nn.functional.grid_sample(
                bands, at, "bicubic", padding_mode="border", align_corners=False
            )
            x = moved.reshape(x.shape)
        return nn.functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


class Pooled(Convolutions):
    """With a channel attention of the simplest kind: each band is divided by its mean."""

    def __init__(self, **spec):
        super().__init__(**spec, scene_statistics=True)

    def forward(self, views, flow=None, statistics=None):
        means = (statistics or self.scene_statistics(views))["means"]
        return super().forward(views) / (1 + means.to(views)[:, None, None])

    def scene_statistics(self, views):
        return {"means": views.mean((0, 1, 3, 4))}


class WatchedModel(Model):
    """A Model that remembers what it was asked to restore, and with which statistics."""

    def watch(self):
        self.forwards, self.statistics = [], []
        return self

    def restore(self, views, flow=None, statistics=None, exposures=None):
        self.forwards.append(views.shape)
        self.statistics.append(statistics)
        return super().restore(views, flow, statistics, exposures)


@pytest.fixture(scope="session")
def make_scene():
    """A scene of an array (band, y, x); ``scene.stack.sources[...].reads`` tells what was read."""

    def make(pixels, flow=None, **stack):
        sources = {f"B{i + 2:02d}": ArraySource(band) for i, band in enumerate(pixels)}
        grid = GeoGrid(pixels.shape[1:])
        if "add_offset" in stack:
            stack["add_offset"] = dict.fromkeys(sources, stack["add_offset"])
        reference = min(sources)
        return BandScene(BandStack(sources, dict.fromkeys(sources, grid), reference, **stack), flow)

    return make


@pytest.fixture(scope="session")
def random_pixels():
    """Noise, the hardest image to stitch: (bands, height, width) uint16 of 100..900."""

    def make(shape, bands=2):
        return np.random.default_rng(3).integers(100, 900, (bands, *shape)).astype(np.uint16)

    return make


@pytest.fixture(scope="session")
def make_model():
    """A test network as the package's Model; ``forwards`` tells what it was given."""
    networks = {
        "convolutions": Convolutions,
        "strided": Strided,
        "pooled": Pooled,
        "bicubic": Bicubic,
    }

    def make(name="convolutions", *, change=lambda network: None, **options):
        network = networks[name](**options)
        change(network)
        return WatchedModel.from_restorer(network, device="cpu").watch()

    return make
