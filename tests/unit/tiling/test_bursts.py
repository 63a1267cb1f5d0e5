"""Bursts through tiles: flow, exposures and frames that cover only a part."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.pixels import Views
from l1bsr_geo.models.hdr_dsp import HDRDSP
from l1bsr_geo.models.registry import Model
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import TilePlan
from tests.synthetic.fine_scenes import made_ground


@dataclass
class SimulatedScene:
    """A simulated burst as tiling asks for it."""

    burst: object
    valid: np.ndarray
    bands: tuple = ("PAN",)
    dtype: np.dtype = field(default_factory=lambda: np.dtype("float32"))
    add_offset: tuple = (0.0,)
    nodata: float = 0.0

    @property
    def grid(self):
        return GeoGrid(self.burst.frames.shape[1:])

    def read(self, window):
        rows, cols = window.slices
        return Views(
            self.burst.frames[:, None, rows, cols],
            self.valid[:, None, rows, cols],
            self.burst.flow[:, None, :, rows, cols],
            self.burst.exposures,
        )


@pytest.fixture(scope="module")
def burst():
    return simulate_burst(
        made_ground(420, 3), (110, 90), 5, noise=1.0, exposures=(0.5, 1.0), seed=1
    )


def tiled(model, scene, size):
    plan = TilePlan.for_model(model.spec, scene.grid.shape, size)
    image = map_tiles(model, scene, plan)
    return image, image.pixels.values[0]


@pytest.mark.parametrize("make", [lambda: Model("shift-and-add"), lambda: Model("act")])
def test_tiles_meet_and_exposures_arrive(burst, make):
    valid = np.ones(burst.frames.shape, bool)
    scene = SimulatedScene(burst, valid)
    model = make()
    image, pixels = tiled(model, scene, 48)
    _, whole = tiled(model, scene, 200)
    assert image.grid.shape == (220, 180)
    assert np.abs(pixels - whole)[4:-4, 4:-4].max() < 0.5
    truth = burst.truth * burst.exposures[0]
    error = np.sqrt(np.mean((pixels - truth)[8:-8, 8:-8] ** 2))
    assert error < 0.03 * truth.mean()


def test_tiles_of_a_network_meet(burst):
    torch.manual_seed(0)
    network = HDRDSP().eval()
    model = Model.from_restorer(network, device="cpu")
    scene = SimulatedScene(burst, np.ones(burst.frames.shape, bool))
    assert np.abs(tiled(model, scene, 48)[1] - tiled(model, scene, 200)[1]).max() < 0.5


@pytest.mark.parametrize("name", ["shift-and-add", "act"])
def test_what_a_frame_does_not_reach_is_no_sample(burst, name):
    valid = np.ones(burst.frames.shape, bool)
    valid[2:, :, 40:] = False
    burst.frames[2:, :, 40:] = 3400.0  # anything may stand there
    image, pixels = tiled(Model(name), SimulatedScene(burst, valid), 48)
    assert image.valid.values.all()  # the reference has all
    truth = burst.truth * burst.exposures[0]
    assert np.abs(pixels - truth)[8:-8, 88:-8].mean() < 0.05 * truth.mean()
    assert pixels.max() < 1.2 * truth.max()
