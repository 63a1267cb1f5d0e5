"""Memory that is not enough: limits that the operating system sets, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError, NotEnoughMemoryError
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.models.devices import ran_out_of_memory
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.fitting import Limits, Piece, Restoration
from l1bsr_geo.tiling.nodata import read_views
from l1bsr_geo.tiling.plan import TilePlan

limited = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux keeps a process within RLIMIT_AS"
)

IN_A_PROCESS = """
import json, logging, resource, sys
import dask, numpy as np, torch
from torch import nn
from tests.unit.tiling.test_fitting import Wide, made_scene
from l1bsr_geo.errors import NotEnoughMemoryError
from l1bsr_geo.models.registry import Model
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import TilePlan

room, shape, size, batch, pooled = json.loads(sys.argv[1])
torch.set_num_threads(1)
model, scene = Model.from_restorer(Wide(pooled), "cpu", "fp32"), made_scene(shape)
plan = TilePlan.for_model(model.spec, scene.grid.shape, size)
def restore():
    image = map_tiles(model, scene, plan, dtype="float32", batch=batch)
    return np.asarray(image.pixels.data.compute(scheduler="sync"))
said = []
class Listener(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("l1bsr_geo").addHandler(Listener(logging.WARNING))
expected = restore()
assert said == []
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (room << 20), resource.RLIM_INFINITY))
answer = {}
try:
    found = [restore() for _ in range(2)]
    answer["error"] = float(max(np.abs(f - expected).max() for f in found))
    answer["deviation"] = float(expected.std())
except NotEnoughMemoryError as error:
    answer["refused"] = str(error)
print(json.dumps(answer | {"said": said}))
"""


class Wide(torch.nn.Module):
    """Two convolutions of so many channels that a tile needs 0.5 kB for each pixel and layer."""

    def __init__(self, pooled=False):
        from l1bsr_geo.models.base import ModelSpec

        super().__init__()
        self.spec = ModelSpec(
            "wide", ("B0", "B1"), halo=2, gain=500.0, scale=1, multiple=4, scene_statistics=pooled
        )
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(2, 128, 3, padding=1)
        self.last = torch.nn.Conv2d(128, 2, 3, padding=1)

    def forward(self, views, flow=None, statistics=None):
        x = views[:, 0]
        if self.spec.scene_statistics:
            x = x / (statistics or self.scene_statistics(views))["mean"].to(x)
        return self.last(torch.relu(self.first(x)))

    def scene_statistics(self, views):
        return {"mean": views.mean()[None]}


def made_scene(shape):
    from l1bsr_geo.geometry.grid import GeoGrid
    from l1bsr_geo.images.bands import BandScene, BandStack
    from tests.unit.tiling.conftest import ArraySource

    pixels = np.random.default_rng(0).integers(100, 900, (2, *shape)).astype(np.uint16)
    sources = {f"B{i}": ArraySource(band) for i, band in enumerate(pixels)}
    return BandScene(BandStack(sources, dict.fromkeys(sources, GeoGrid(tuple(shape))), "B0"))


def restore_within(room, shape, size, batch=1, pooled=False):
    """Restores with so much more memory [MiB] than there was in use, and tells how that went."""
    told = json.dumps([room, shape, size, batch, pooled])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_PROCESS, told],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={"OMP_NUM_THREADS": "1", "PATH": "", "MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@limited
def test_a_tile_that_does_not_fit_is_restored_in_parts():
    answer = restore_within(room=100, shape=(400, 400), size=400)
    assert answer["error"] < 1e-3 < answer["deviation"]
    assert "not enough for a tile of 400 x 400 px; going on with halves of it" in answer["said"][0]
    assert len(answer["said"]) == len(set(answer["said"])) < 5  # once per size, not per tile


@limited
def test_a_batch_that_does_not_fit_is_halved_first():
    answer = restore_within(room=60, shape=(96, 1152), size=192, batch=4)
    assert answer["error"] < 1e-3
    assert "4 tiles, each a tile of" in answer["said"][0]
    assert answer["said"][0].endswith("going on with 2 at once")
    assert "halves" not in " ".join(answer["said"])


@limited
def test_where_nothing_fits_it_says_so():
    answer = restore_within(room=0, shape=(64, 64), size=64)
    assert "do not fit into the memory of cpu" in answer["refused"]
    assert "\n" not in answer["refused"]


@limited
def test_parts_of_a_tile_share_its_statistics():
    """A single tile pools over itself; its parts get what is pooled over samples of it."""
    answer = restore_within(room=100, shape=(400, 400), size=400, pooled=True)
    assert answer["error"] < 0.01 * answer["deviation"]


@pytest.fixture
def in_parts(make_scene, random_pixels):
    """Restores one tile whole, and with a memory in which so many pixels were too many."""

    def restore(model, shape, too_many, flow=None):
        scene = make_scene(random_pixels(shape), flow)
        plan = TilePlan.for_model(model.spec, shape, max(shape))
        piece = Piece(plan[0], read_views(scene, plan[0].read))
        limits = Limits()
        (whole,) = Restoration(model, scene, plan, limits=limits).restore([piece])
        sizes = model.forwards.copy()
        key = model.identity, model.torch_device, model.precision, piece.views.pixels.shape[:2]
        limits.note_failure(key, too_many)
        (parts,) = Restoration(model, scene, plan, limits=limits).restore([piece])
        return whole, parts, model.forwards[len(sizes) :]

    return restore


@pytest.mark.parametrize("shape", [(64, 64), (47, 90), (33, 200), (200, 5), (97, 99)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convolutions", {}),
        ("convolutions", {"scale": 3, "aligned": "centre"}),
        ("strided", {}),
    ],
)
def test_parts_are_the_whole(in_parts, make_model, shape, name, options):
    model = make_model(name, **options)
    too_many = shape[0] * shape[1] // 2
    whole, parts, forwards = in_parts(model, shape, too_many)
    np.testing.assert_allclose(parts, whole, atol=1e-3)
    assert len(forwards) > 1
    assert all(rows * cols < too_many for *_, rows, cols in forwards)


def test_motion_goes_with_the_parts(in_parts, make_model):
    nodes = np.random.default_rng(0).uniform(-2, 2, (2, 2, 9, 9)).astype(np.float32)
    model = make_model("bicubic", flow=True)
    whole, parts, _ = in_parts(model, (80, 80), 5000, FlowField(nodes, 10.0))
    np.testing.assert_allclose(parts, whole, atol=0.05)


def test_motion_beyond_the_context_of_a_part_is_refused(in_parts, make_model):
    flow = FlowField(np.full((2, 2, 2, 2), -9.5, np.float32), 100.0)
    with pytest.raises(BadInputError, match=r"9.5 px, more than the 6 px"):
        in_parts(make_model("bicubic", flow=True, halo=6), (80, 80), 5000, flow)


def test_parts_that_make_no_sense_are_refused(in_parts, make_model):
    with pytest.raises(NotEnoughMemoryError, match="do not fit into the memory of cpu"):
        in_parts(make_model(), (64, 64), 100)


def test_what_did_not_fit_is_remembered_and_told_once():
    limits = Limits()
    assert limits.allows("a", 10**12)
    assert limits.note_failure("a", 1000)
    assert not limits.note_failure("a", 1000)
    assert not limits.note_failure("a", 2000)
    assert limits.allows("a", 999)
    assert not limits.allows("a", 1000)
    assert limits.allows("b", 1000)


def test_what_says_that_memory_was_not_enough():
    with pytest.raises(RuntimeError) as torch_error:
        torch.empty(1 << 55)
    with pytest.raises(MemoryError) as numpy_error:
        np.empty(1 << 55)
    assert ran_out_of_memory(torch_error.value)
    assert ran_out_of_memory(numpy_error.value)
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert not ran_out_of_memory(other.value)


def test_other_errors_are_not_taken_for_it(make_model, make_scene, random_pixels):
    def spoil(network):
        network.layers[0] = torch.nn.Conv2d(5, 6, 3)

    image = map_tiles(make_model(change=spoil), make_scene(random_pixels((8, 8))))
    with pytest.raises(RuntimeError, match="expected input"):
        image.pixels.compute()
