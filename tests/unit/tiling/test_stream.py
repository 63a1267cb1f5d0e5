"""Graphs computed in runs: everything once, in order, with little held."""

import threading
from collections import Counter
from pathlib import Path

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.parts import TileShelf
from l1bsr_geo.georef.pyramid import TileFormat, encode_lazily
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.registry import Model
from l1bsr_geo.tiling import stream
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import TilePlan
from l1bsr_geo.tiling.shelf import ShelvedGraph, name_restoration, take_tile
from l1bsr_geo.tiling.stream import Runs, compute_in_runs


@st.composite
def graphs(draw):
    """Tasks that add up others, and what they come to."""
    count = draw(st.integers(1, 25))
    needs = [draw(st.lists(st.integers(0, i - 1), max_size=3)) if i else [] for i in range(count)]
    wanted = draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    return needs, wanted


@given(graphs(), st.integers(1, 7))
def test_every_task_once_and_right(graph, size):
    needs, wanted = graph
    calls: Counter[int] = Counter()
    lock = threading.Lock()

    def add(i, *parts):
        with lock:
            calls[i] += 1
        return i + sum(parts)

    tasks = {("t", i): (add, i, *(("t", n) for n in needs[i])) for i in range(len(needs))}
    truth: list[int] = []
    for i, n in enumerate(needs):
        truth.append(i + sum(truth[k] for k in n))
    got: dict[object, int] = {}
    before, stream.LOCAL_RUN = stream.LOCAL_RUN, size
    try:
        compute_in_runs(tasks, [("t", i) for i in wanted], got.__setitem__)
    finally:
        stream.LOCAL_RUN = before
    assert got == {("t", i): truth[i] for i in wanted}
    assert set(calls.values()) <= {1}


def test_a_run_holds_what_the_next_ones_need_and_no_more():
    """A chain of tiles, each shown by two blocks."""
    graph = {("tile", i): (float, i) for i in range(9)}
    graph |= {("block", i): (max, ("tile", i), ("tile", i + 1)) for i in range(8)}
    runs = Runs.plan(graph, [("block", i) for i in range(8)], 2)
    assert [runs.kept(n) for n in range(4)] == [[("tile", 2)], [("tile", 4)], [("tile", 6)], []]
    assert runs.still(1, [("tile", 2), ("tile", 4)]) == [("tile", 4)]
    assert sum(map(len, runs.tasks)) == len(graph)


def test_errors_of_tasks_and_of_delivery_come_out():
    def fail(value):
        raise ZeroDivisionError(value)

    with pytest.raises(ZeroDivisionError):
        compute_in_runs({"a": (fail, 1)}, ["a"], print)
    with pytest.raises(ZeroDivisionError):
        compute_in_runs({"a": (float, 1)}, ["a"], lambda key, result: fail(result))


def test_the_shelf_is_cleared_as_blocks_are_delivered_and_used_again(tmp_path):
    name = f"{name_restoration('tiles')}-{'0' * 8}"
    restored: list[int] = []

    def restore(i):
        restored.append(i)
        return [(np.full((1, 2, 2), i), np.ones((2, 2), bool))]

    def show(tiles):
        return sum(int(pixels[0, 0, 0]) for pixels in tiles)

    graph = {(name, i): (restore, i) for i in range(5)}
    graph |= {("pixels", i): (take_tile, (name, i), 0, 0) for i in range(5)}
    graph |= {("block", i): (show, [("pixels", i), ("pixels", i + 1)]) for i in range(4)}
    blocks = [("block", i) for i in range(4)]
    shelf = TileShelf(tmp_path)
    got: dict[object, int] = {}
    waiting: list[int] = []

    def deliver(key, result):
        if len(got) == 2:
            raise KeyboardInterrupt
        got[key] = result
        waiting.append(len(list(tmp_path.iterdir())))

    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(KeyboardInterrupt):
            compute_in_runs(graph, blocks, deliver, shelf)
        assert max(waiting) <= 4
        got.clear()
        first, restored[:] = list(restored), []
        compute_in_runs(graph, blocks[2:], got.__setitem__, shelf)
    assert got == {("block", 2): 5, ("block", 3): 7}
    assert len(set(restored) & set(first)) <= 1  # block 1 had come, tile 2 had not been let go
    assert not [p for p in tmp_path.iterdir() if int(p.stem[-1]) >= 2]


class _Far:
    """A scene too large for anything but its plan."""

    grid = GeoGrid((100 * 512, 100 * 512), None)
    bands = ("B03",)
    dtype = np.dtype("uint16")
    nodata = None
    add_offset = (0.0,)


def test_10_000_tiles_are_planned_as_few_small_tasks(tmp_path):
    """Seven tasks a tile, and a first run that says no more than itself."""
    scene = _Far()
    model = Model.from_restorer(Geometric(scale=2), device="cpu")
    plan = TilePlan.for_model(model.spec, scene.grid.shape, size=512)
    assert len(plan) == 100 * 100
    image = map_tiles(model, scene, plan)
    form = TileFormat(1, np.dtype("uint16"), 0, 512)
    some = [(row, col) for row in range(2) for col in range(200)]  # of 40,000 blocks
    graph, places = encode_lazily(form, image.pixels.data, image.valid.data, some)
    assert len(graph) < 4 * len(plan)
    shelved = ShelvedGraph(graph, list(places), TileShelf(Path(tmp_path)), print)
    runs = Runs.plan(shelved.graph, list(places), stream.LOCAL_RUN)
    assert len(runs.tasks[0]) < 8 * stream.LOCAL_RUN
