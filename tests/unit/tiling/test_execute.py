import pickle
import tracemalloc
from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pytest
import torch
from dask.distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bands import BandScene, BandStack
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.models import rcan
from l1bsr_geo.models.rcan import REC
from l1bsr_geo.models.receptive_field import probe_halo
from l1bsr_geo.models.registry import Model
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import DEFAULT_SIZE, TilePlan
from l1bsr_geo.tiling.statistics import take_statistics


def plan_for(model, scene, size, halo=None):
    return TilePlan.for_model(model.spec, scene.grid.shape, size, halo)


def restore_whole(model, scene, statistics=None):
    """The scene in one piece, without tiling."""
    return model.restore(scene.read(scene.grid.window).pixels[None], None, statistics)[0]


def assert_seamless(image, whole):
    assert_rounded(image.pixels.compute(scheduler="sync").values, whole)


def assert_rounded(restored, whole):
    assert restored.shape == whole.shape
    assert (
        np.abs(restored - np.clip(whole, 0, 65535)).max() <= 0.51
    )  # rounding, and what float32 leaves


SHAPES = [(1, 1), (1, 37), (41, 1), (2, 3), (13, 13), (31, 47), (48, 64), (97, 53)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convolutions", {}),
        ("convolutions", {"scale": 1}),
        ("convolutions", {"scale": 3, "aligned": "centre"}),
        ("strided", {}),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_stitched_equals_whole(make_model, make_scene, random_pixels, shape, name, options, batch):
    model, scene = make_model(name, **options), make_scene(random_pixels(shape))
    image = map_tiles(model, scene, plan_for(model, scene, 16), batch=batch)
    assert image.grid.shape == image.pixels.shape[1:] == image.valid.shape
    assert_seamless(image, restore_whole(model, scene))


@pytest.mark.parametrize("shape", [(1, DEFAULT_SIZE + 1), (DEFAULT_SIZE + 7, 530), (509, 7)])
def test_stitched_equals_whole_at_default_settings(make_model, make_scene, random_pixels, shape):
    model, scene = make_model(), make_scene(random_pixels(shape))
    assert_seamless(map_tiles(model, scene), restore_whole(model, scene))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(3, 40), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_stitched_equals_whole_at_any_size(
    make_model, make_scene, random_pixels, height, width, size, batch
):
    model, scene = make_model(), make_scene(random_pixels((height, width)))
    image = map_tiles(model, scene, plan_for(model, scene, size), batch=batch)
    assert_seamless(image, restore_whole(model, scene))


def test_stitched_equals_whole_with_motion_and_holes(make_model, make_scene, random_pixels):
    pixels = random_pixels((60, 50))
    pixels[:, 20:35, 10:30] = 0
    pixels[0, 48:, :] = 0
    nodes = np.random.default_rng(0).uniform(-2, 2, (2, 2, 5, 5)).astype(np.float32)
    scene = make_scene(pixels, FlowField(nodes, 16.0), nodata=0)
    model = make_model("bicubic", flow=True)
    tiled, whole = (
        map_tiles(model, scene, plan_for(model, scene, size), dtype="float32") for size in (17, 60)
    )
    np.testing.assert_array_equal(tiled.valid, whole.valid)
    assert 0.5 < float(tiled.valid.mean()) < 0.9
    np.testing.assert_allclose(tiled.pixels, whole.pixels, atol=0.5)


def test_each_tile_is_one_forward_and_one_read(make_model, make_scene, random_pixels):
    model, scene = make_model(), make_scene(random_pixels((40, 50)))
    plan = plan_for(model, scene, 16)
    image = map_tiles(model, scene, plan)
    dask.compute(image.pixels, image.valid)
    assert len(model.forwards) == len(plan) == 12
    for source in scene.stack.sources.values():
        assert sorted(source.reads) == sorted(tile.read for tile in plan)


def test_nothing_is_read_before_it_is_asked_for(make_model, make_scene, random_pixels):
    model, scene = make_model(), make_scene(random_pixels((64, 64)))
    reads = scene.stack.sources["B02"].reads
    image = map_tiles(model, scene, plan_for(model, scene, 16))
    assert reads == []
    assert model.forwards == []
    image.pixels[:, 40:50, 10:20].compute()  # inside one tile
    assert reads == [Window(0, 13, 19, 22)]
    assert len(model.forwards) == 1


def test_tiles_of_one_shape_go_together(make_model, make_scene, random_pixels):
    model, scene = make_model(), make_scene(random_pixels((16, 96)))
    map_tiles(model, scene, plan_for(model, scene, 16), batch=3).pixels.compute()
    # 6 tiles in a row: the outer two have a halo on one side only
    assert sorted(shape[0] for shape in model.forwards) == [1, 1, 1, 3]


def test_the_graph_holds_model_and_scene_once_and_little_per_tile(
    make_model, make_scene, random_pixels
):
    model, scene = make_model(), make_scene(random_pixels((64, 64)))

    def graph_size(size):
        plan = plan_for(model, scene, size)
        image = map_tiles(model, scene, plan)
        graph = dict(image.pixels.__dask_graph__()) | dict(image.valid.__dask_graph__())
        return len(pickle.dumps(list(graph.items()))), len(graph), len(plan)

    few, many = graph_size(16), graph_size(4)
    tiles = many[2] - few[2]
    assert (many[1] - few[1]) / tiles == 3  # the call, and taking pixels and valid out of it
    assert (many[0] - few[0]) / tiles < 500  # bytes


def test_the_graph_of_a_large_scene_is_built_at_once(make_model, make_scene):
    model = make_model()
    scene = make_scene(np.broadcast_to(np.uint16(1), (2, 40_000, 40_000)))
    image = map_tiles(model, scene)
    assert image.pixels.data.npartitions == 157**2


def test_the_result_says_where_it_is_and_how_it_was_made(make_model, make_scene, random_pixels):
    model, scene = make_model(), make_scene(random_pixels((20, 30)), nodata=7)
    image = map_tiles(model, scene, plan_for(model, scene, 16, halo=5))
    assert image.grid == scene.grid.zoom(2)
    assert image.bands == ("B02", "B03")
    assert image.pixels.attrs["model"] == "convolutions"
    assert (image.pixels.attrs["tile_size"], image.pixels.attrs["tile_halo"]) == (16, 5)
    assert image.pixels.attrs["nodata"] == 7
    assert image.pixels.attrs["weights_sha256"] == model.weights_sha256
    plain = map_tiles(Model("bicubic"), scene)
    assert "weights_sha256" not in plain.pixels.attrs  # nothing trained


@pytest.mark.parametrize("options", [{"batch": 0}, {"dtype": "int8"}])
def test_impossible_options_are_refused(make_model, make_scene, random_pixels, options):
    (name, value), *_ = options.items()
    with pytest.raises(BadOptionError, match=f"{name} is {value!r}"):
        map_tiles(make_model(), make_scene(random_pixels((8, 8))), **options)


def test_a_small_halo_is_refused_before_anything_is_read(make_model, make_scene, random_pixels):
    scene = make_scene(random_pixels((8, 8)))
    plan = TilePlan((8, 8), 4, halo=2, scale=2)
    with pytest.raises(BadOptionError, match="halo is 2 px, but convolutions depends on 3 px"):
        map_tiles(make_model(), scene, plan)
    assert scene.stack.sources["B02"].reads == []


def test_other_bands_are_refused(make_model, make_scene, random_pixels):
    model = make_model()
    model.spec = replace(model.spec, bands=("B08", "B04"))
    with pytest.raises(BadInputError, match="takes the bands B08, B04, but the image has B02, B03"):
        map_tiles(model, make_scene(random_pixels((8, 8))))


def test_values_that_are_not_finite_are_an_error(make_model, make_scene, random_pixels):
    def spoil(network):
        network.layers[0].weight.data[:] = np.inf

    model = make_model(change=spoil)
    image = map_tiles(model, make_scene(random_pixels((8, 8))))
    with pytest.raises(BadInputError, match="not finite in the tile at column 0, row 0"):
        image.pixels.compute()


def test_a_model_that_looks_farther_than_its_halo_is_refused(make_model, make_scene, random_pixels):
    def shrink(network):
        network.spec = replace(network.spec, halo=1)

    scene = make_scene(random_pixels((16, 16)))
    model = make_model(change=shrink)
    with pytest.raises(BadInputError, match=r"looks 3 px around a pixel.* halo is 1 px"):
        map_tiles(model, scene, plan_for(model, scene, 8)).pixels.compute()
    assert scene.stack.sources["B02"].reads == []
    assert_seamless(
        map_tiles(model, scene, plan_for(model, scene, 8, halo=3)), restore_whole(model, scene)
    )
    map_tiles(model, scene).pixels.compute()  # in one tile there is no seam


def test_the_halo_is_measured_once_for_each_model(
    make_model, make_scene, random_pixels, monkeypatch
):
    model, scene = make_model(), make_scene(random_pixels((16, 16)))
    probes = []

    def probe(restorer, **options):
        probes.append(options)
        return probe_halo(restorer, **options)

    monkeypatch.setattr("l1bsr_geo.models.registry.probe_halo", probe)
    for same in (model, model.at_precision("fp32"), pickle.loads(pickle.dumps(model))):
        map_tiles(same, scene, plan_for(same, scene, 8)).pixels.compute(scheduler="sync")
    assert len(probes) == 1


def test_motion_larger_than_the_halo_is_an_error(make_model, make_scene, random_pixels):
    flow = FlowField(np.full((2, 2, 2, 2), 9.5, np.float32), 100.0)
    scene = make_scene(random_pixels((40, 40)), flow)
    model = make_model("bicubic", flow=True, halo=6)
    with pytest.raises(BadInputError, match=r"up to 9.5 px, more than the 6 px"):
        map_tiles(model, scene, plan_for(model, scene, 16)).pixels.compute()
    wider = map_tiles(model, scene, plan_for(model, scene, 16, halo=12))
    assert wider.pixels.compute().shape == (2, 80, 80)


def test_a_pooling_model_gets_one_statistic_for_all_tiles(make_model, make_scene, random_pixels):
    pixels = random_pixels((60, 60))
    pixels[:, :, 30:] //= 8  # the right half is dark: per-tile means would show
    model, scene = make_model("pooled"), make_scene(pixels)
    image = map_tiles(model, scene, plan_for(model, scene, 20))
    assert_seamless(image, restore_whole(model, scene, {"means": pixels.mean((1, 2)) / 500}))
    assert len(model.forwards) == 9 + 1


def test_a_single_tile_just_runs(make_model, make_scene, random_pixels):
    model, scene = make_model("pooled"), make_scene(random_pixels((30, 30)))
    map_tiles(model, scene).pixels.compute()
    assert model.statistics == [None]


def test_statistics_come_from_where_there_is_data(make_model, make_scene, random_pixels):
    pixels = random_pixels((90, 90))
    pixels[:, :, :60] = 0
    scene, model = make_scene(pixels, nodata=0), make_model("pooled")
    map_tiles(model, scene, plan_for(model, scene, 10)).pixels.compute()
    seen = model.statistics[0]
    assert all(statistics is seen for statistics in model.statistics)
    np.testing.assert_allclose(seen["means"] * 500, pixels[:, :, 60:].mean((1, 2)), rtol=0.1)


def test_statistics_of_a_sliver_come_from_the_sliver(make_model, make_scene, random_pixels):
    pixels = random_pixels((300, 300))
    pixels[:, 1:] = 0  # one row, far from the middle of any tile
    scene, model = make_scene(pixels, nodata=0), make_model("pooled")
    seen = take_statistics(model, scene, plan_for(model, scene, 150))
    np.testing.assert_allclose(seen["means"] * 500, pixels[:, 0].mean(1), rtol=0.01)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_every_scheduler_gives_the_same(make_model, make_scene, random_pixels, scheduler):
    model, scene = make_model(), make_scene(random_pixels((40, 40)))
    image = map_tiles(model, scene, plan_for(model, scene, 16))
    pixels, valid = dask.compute(image.pixels, image.valid, scheduler=scheduler)
    assert valid.values.all()
    assert_rounded(pixels.values, restore_whole(model, scene))


def test_on_a_cluster(make_model, make_scene, random_pixels):
    model, scene = make_model(), make_scene(random_pixels((40, 40)))
    image = map_tiles(model, scene, plan_for(model, scene, 16))
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None):
        pixels, valid = dask.compute(image.pixels, image.valid)
    assert valid.values.all()
    assert_rounded(pixels.values, restore_whole(model, scene))


def test_an_image_pickles(make_model, make_scene, random_pixels):
    model, scene = make_model(), make_scene(random_pixels((20, 20)))
    image = map_tiles(model, scene, plan_for(model, scene, 16))
    again = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(again.pixels, image.pixels)


def test_memory_is_that_of_the_tiles_in_flight(make_model, make_scene, tmp_path):
    """Peak of what numpy holds, stored to disk: 16 times the area, the same memory."""

    def peak(length):
        scene = make_scene(np.broadcast_to(np.uint16(300), (2, length, length)))  # no memory
        model = make_model()
        image = map_tiles(model, scene, plan_for(model, scene, 128))
        targets = [
            np.memmap(tmp_path / f"{array.name}-{length}", array.dtype, "w+", shape=array.shape)
            for array in (image.pixels.data, image.valid.data)
        ]
        tracemalloc.start()
        with dask.config.set(scheduler="threads", num_workers=2):
            da.store([image.pixels.data, image.valid.data], targets, lock=False)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert targets[1].all()
        return most, sum(target.nbytes for target in targets)

    peak(128)  # what is imported and cached on the way does not count
    (small, few), (large, many) = peak(512), peak(2048)
    assert large - small < 0.1 * (many - few)  # dask's own 14 kB a tile, and no pixels
    assert large < many / 4


@pytest.mark.parametrize("name", ["geometric", "bicubic"])
@pytest.mark.parametrize("shape", [(7, 9), (5, 71), (83, 47)])
def test_the_baselines_are_seamless(make_scene, random_pixels, name, shape):
    nodes = np.random.default_rng(0).uniform(-3, 3, (2, 2, 8, 8)).astype(np.float32)
    scene = make_scene(random_pixels(shape), FlowField(nodes, 16.0))
    model = Model(name)
    views = scene.read(scene.grid.window)
    whole = model.restore(views.pixels[None], views.flow[None])[0]
    image = map_tiles(model, scene, plan_for(model, scene, 24))
    pixels, valid = (a.values for a in dask.compute(image.pixels, image.valid))
    assert valid.any()
    assert_rounded(pixels[:, valid], whole[:, valid])


def test_channel_attention_is_seamless_with_scene_statistics(make_scene, random_pixels):
    """A small REC with a strong attention: where it pools by tile, tiles do not meet."""
    torch.manual_seed(0)
    rec = REC(groups=1, blocks=2, spec=replace(rcan.SPEC, halo=9))
    for block in rec.body[0].body[:-1]:
        for layer in block.body[3].conv_du[::2]:
            layer.weight.data *= 30
    model = Model.from_restorer(rec, device="cpu")
    pixels = random_pixels((60, 60), bands=4)
    pixels[:, :, 30:] //= 8
    stack = make_scene(pixels).stack
    sources = dict(zip(rcan.SPEC.bands, stack.sources.values(), strict=True))
    scene = BandScene(BandStack(sources, dict.fromkeys(sources, stack.grids["B02"]), "B03"))
    views = scene.read(scene.grid.window).pixels[None]
    plan = plan_for(model, scene, 20)
    statistics = take_statistics(model, scene, plan)
    assert_seamless(map_tiles(model, scene, plan), model.restore(views, None, statistics)[0])
    inside = np.s_[0, :, :60, :60]  # of a tile of 40 px, more than its halo from its border
    by_tile, whole = model.restore(views[..., :40, :40]), model.restore(views)
    assert np.abs(by_tile[inside] - whole[inside]).max() > 2
