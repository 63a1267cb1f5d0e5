import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.tiling.plan import TilePlan

lengths = st.integers(1, 40)


@given(
    st.tuples(lengths, lengths),
    st.integers(1, 30),
    st.integers(0, 9),
    st.sampled_from([1, 2, 5, 8]),
)
@settings(max_examples=60, deadline=None)
def test_tiles_cover_every_pixel_once_and_read_what_they_need(shape, size, halo, multiple):
    plan = TilePlan(shape, size, halo, multiple=multiple)
    covered = np.zeros(shape, int)
    height, width = shape
    for tile in plan:
        covered[tile.core.slices] += 1
        read, needed = tile.read, tile.core.grow(halo).intersect(Window(0, 0, width, height))
        assert read.intersect(needed) == needed
        assert read.intersect(Window(0, 0, width, height)) == read
        assert read.col_off % multiple == 0
        assert read.row_off % multiple == 0
        assert read.width % multiple == 0 or read.col_off + read.width == width
        assert read.height % multiple == 0 or read.row_off + read.height == height
        within = np.zeros(read.shape, bool)
        within[tile.crop.slices] = True
        assert within.sum() == tile.core.width * tile.core.height
    assert (covered == 1).all()
    assert len(list(plan)) == len(plan)


@given(lengths, st.integers(1, 60), st.sampled_from([1, 4]))
@settings(deadline=None)
def test_tiles_are_as_equal_as_regular_chunks_can_be(length, size, multiple):
    _, widths = TilePlan((1, length), size, multiple=multiple).cores
    largest = -(-size // multiple) * multiple
    assert len(set(widths[:-1])) <= 1
    assert 0 < widths[-1] <= widths[0] <= largest
    # no more tiles than the size asks for, and none smaller than that many tiles must be
    assert len(widths) <= -(-length // largest)
    assert widths[0] < -(-length // len(widths)) + multiple


def test_sizes_are_evened_out():
    assert TilePlan((513, 1025), 512).cores == ((257, 256), (342, 342, 341))


@pytest.mark.parametrize("halo", [0, 2, 16, 32])
def test_over_a_granule_a_halo_costs_15_percent_at_most(halo):
    plan = TilePlan.for_model(ModelSpec("net", halo=halo), (2304, 2552))
    read = sum(tile.read.width * tile.read.height for tile in plan)
    assert read / (2304 * 2552) < 1.15
    assert 256 <= plan.size <= 1024


def test_chunks_are_on_the_fine_grid():
    assert TilePlan((5, 7), 4, scale=3).chunks == ((9, 6), (12, 9))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_an_image_without_pixels_is_refused(shape):
    with pytest.raises(BadInputError, match="0 "):
        TilePlan(shape)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"halo": -1}, {"scale": 0}, {"multiple": 0}])
def test_impossible_numbers_are_refused(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(BadOptionError, match=f"tile {name} is {value}"):
        TilePlan((4, 4), **wrong)


def test_a_halo_smaller_than_the_models_is_refused_with_both_numbers():
    with pytest.raises(BadOptionError, match=r"halo is 7 px, but net depends on 8 px"):
        TilePlan.for_model(ModelSpec("net", halo=8), (64, 64), halo=7)


@pytest.mark.parametrize(
    "other", [{"scale": 3}, {"aligned": "centre"}, {"multiple": 4}, {"shape": (9, 9)}]
)
def test_a_plan_made_for_something_else_is_refused(other):
    (name, _), *_ = other.items()
    plan = TilePlan(**{"shape": (64, 64), "halo": 8, "scale": 2} | other)
    with pytest.raises(BadOptionError, match=f"the tile plan has {name}"):
        plan.check(ModelSpec("net", halo=8, scale=2), (64, 64))


def test_only_its_own_tiles():
    plan = TilePlan((8, 8), 4)
    with pytest.raises(IndexError, match="tile 4 of 4"):
        plan[4]
