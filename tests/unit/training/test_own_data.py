"""Samples from real files: their motion is the true one of what the files were made from."""

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import rasterio
import torch
from scipy import ndimage

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    L1bsrGeoError,
    L1bsrGeoWarning,
    MissingInputError,
)
from l1bsr_geo.geometry.elevation import localize_on_terrain
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.flow import BurstFlow, FlowField
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.overpass import Overpass
from l1bsr_geo.simulation.rendering import lonlat_bounds, map_bounds
from l1bsr_geo.simulation.scenes import TEN_METRE_BANDS, procedural_scene, relief
from l1bsr_geo.simulation.sentinel2_product import write_l1b_product
from l1bsr_geo.simulation.skysat_collect import scene_on_map, write_skysat_collect
from l1bsr_geo.training.burst_stacks import BurstStacks
from l1bsr_geo.training.overlap_pairs import OverlapPairs
from l1bsr_geo.training.own_bursts import OwnBursts, seen_from
from l1bsr_geo.training.own_overlaps import OwnOverlaps

SIDE = 96
CITY = made_city((300, 300), seed=1)
LENGTHS = (6, 4, 6)


def rng(seed):
    return np.random.default_rng(seed)


def place_of(crop, image):
    """Top and left of a crop of which every pixel is finite, in an image."""
    rows, columns = crop.shape
    found = np.argwhere(image[: image.shape[0] - 3, : image.shape[1] - 3] == crop[0, 0])
    for top, left in found:
        here = image[top : top + rows, left : left + columns]
        if here.shape == crop.shape and np.array_equal(here, crop):
            return int(top), int(left)
    return None


def find(crop, images):
    """Which image a crop is of, and its top and left there; NaN is outside the image."""
    known = np.isfinite(crop)
    rows, columns = (np.flatnonzero(known.any(axis)) for axis in (1, 0))
    inner = crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    for t, image in enumerate(images):
        place = place_of(inner, image)
        if place is not None:
            return t, place[0] - rows[0], place[1] - columns[0]
    raise AssertionError("no image holds the crop")


def same(first, second):
    a, b = first.views, second.views
    return a.shape == b.shape and torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))


# stacks of the authors' data sets


@pytest.fixture(scope="module")
def simulated():
    bursts = [
        simulate_burst(CITY * 0.7, (SIDE, SIDE), n, noise=1.5, seed=k)
        for k, n in enumerate(LENGTHS)
    ]
    bright = simulate_burst(
        CITY * 0.7, (SIDE, SIDE), 5, noise=1.0, exposures=(1, 0.5, 2, 1, 0.5), seed=9
    )
    return [*bursts, bright]


@pytest.fixture(scope="module")
def stacks(tmp_path_factory, simulated):
    folder = tmp_path_factory.mktemp("stacks")
    for number, made in zip((7, 2003, 2300, 1999), simulated, strict=True):
        np.save(folder / f"seq_{number:04d}.npy", made.counts)
    np.save(folder / "seq_1999_exposures.npy", 0.46 * simulated[3].exposures)
    return folder


def test_flow_of_stacks_is_the_true_one_whatever_the_reference(stacks, simulated):
    source = BurstStacks(stacks, size=48, frames=(3, 6), saturated=None, turned=False)
    references = set()
    for seed in range(4):
        batch = source.draw(rng(seed), 4)
        assert batch.views.shape == (4, batch.views.shape[1], 1, 48, 48)
        assert not batch.views[:, 0].isnan().any()
        assert batch.truth is None
        for views, flow in zip(batch.views[:, :, 0].numpy(), batch.flow.numpy(), strict=True):
            k, at = next((k, a) for k in range(4) if (a := _frames_of(views, simulated[k].counts)))
            motion = simulated[k].flow.mean((2, 3))  # pure translations
            references.add((k, at[0][0]))
            for (t, top, left), got in zip(at, flow, strict=True):
                r, top_r, left_r = at[0]
                whole = np.array([left - left_r, top - top_r])
                expected = motion[t] - motion[r] - whole
                error = got[0] - expected[:, None, None]
                assert np.median(np.hypot(*error)) < 0.05
                assert np.abs(got).max() < 0.6
    assert len(references) > 6


def _frames_of(views, images):
    try:
        return [find(view, images) for view in views]
    except AssertionError:
        return None


def test_samples_depend_on_the_generator_alone(stacks):
    source = BurstStacks(stacks, size=40, frames=(2, 6), saturated=None)
    first = [source.draw(rng(seed), 3) for seed in (1, 2, 3)]
    fresh = BurstStacks(str(stacks), size=40, frames=(2, 6), saturated=None)
    again = [fresh.draw(rng(seed), 3) for seed in (3, 2, 1)]
    for one, two in zip(first, reversed(again), strict=True):
        assert same(one, two)
        assert torch.equal(one.flow, two.flow)
    assert not same(first[0], first[1])


def test_one_number_of_frames_for_all_samples_and_only_stacks_that_have_them(stacks):
    source = BurstStacks(stacks, size=40, frames=(5, 20), saturated=None)
    counts = {source.draw(rng(seed), 2).views.shape[1] for seed in range(6)}
    assert counts <= {5, 6}
    assert 6 in counts
    with pytest.raises(BadInputError, match=r"has 6 frames, the most of 4 bursts; at least 7"):
        BurstStacks(stacks, frames=(7, 9))


def test_exposures_are_relative_to_the_reference_and_none_where_alike(stacks, simulated):
    alone = BurstStacks(stacks, size=48, frames=(5, 5), split="train", saturated=None, turned=False)
    for seed in range(6):
        batch = alone.draw(rng(seed), 1)
        at = _frames_of(batch.views[0, :, 0].numpy(), simulated[3].counts)
        if at is None:
            assert batch.exposures is None
        else:
            told = simulated[3].exposures[[t for t, _, _ in at]]
            assert batch.exposures[0].numpy() == pytest.approx(told / told[0])
            return
    pytest.fail("the stack with exposures was not drawn")


def test_exposures_may_be_told_in_json(tmp_path, simulated):
    np.save(tmp_path / "a.npy", simulated[3].counts)
    told = {"exposures": [float(e) for e in simulated[3].exposures]}
    (tmp_path / "a.json").write_text(json.dumps(told))
    batch = BurstStacks(tmp_path, frames=(5, 5), saturated=None).draw(rng(0), 1)
    assert sorted(batch.exposures[0] / batch.exposures.min()) == [1, 1, 2, 2, 4]


def test_saturated_frames_are_left_out(tmp_path, simulated):
    counts = simulated[3].counts
    level = int(counts[[0, 1, 3, 4]].max()) + 1
    assert counts[2].max() > level
    np.save(tmp_path / "a.npy", counts)
    source = BurstStacks(tmp_path, size=48, frames=(4, 5), saturated=level, turned=False)
    batch = source.draw(rng(0), 8)
    assert batch.views.shape[1] == 4
    assert batch.views.nan_to_num().max() < level
    with pytest.warns(L1bsrGeoWarning, match=r"5 of its 5 frames reach beyond 10 DN"):
        none = BurstStacks(tmp_path, size=48, frames=(2, 5), saturated=10).bursts[0].scene
    assert none is not None
    assert len(none.burst) == 1


@pytest.mark.parametrize(("split", "numbers"), [("train", [7, 1999]), ("val", [2003]), (None, 4)])
def test_stacks_are_split_by_number_or_by_folder(stacks, simulated, tmp_path, split, numbers):
    names = [Path(b.name).stem for b in BurstStacks(stacks, split=split, frames=(2, 9)).bursts]
    if split is None:
        assert len(names) == numbers
        return
    assert names == [f"seq_{n:04d}" for n in numbers]
    (tmp_path / split).mkdir()
    np.save(tmp_path / split / "any name.npy", simulated[0].counts)
    (found,) = BurstStacks(tmp_path, split=split).bursts
    assert Path(found.name).parent.name == split


def test_a_stack_that_shows_nothing_is_left_out_with_its_name(tmp_path, simulated):
    noise = rng(0).normal(500, 15, (4, SIDE, SIDE)).astype(np.uint16)
    np.save(tmp_path / "sea.npy", noise)
    source = BurstStacks(tmp_path, size=48, frames=(2, 4))
    with (
        pytest.warns(L1bsrGeoWarning, match=r"sea\.npy is left out: none of the other 3 frames"),
        pytest.raises(BadInputError, match=r"show no 2 frames of the same 48 x 48 pixels"),
    ):
        source.draw(rng(0), 2)
    np.save(tmp_path / "town.npy", simulated[0].counts)
    with pytest.warns(L1bsrGeoWarning, match=r"sea\.npy is left out"):
        batch = BurstStacks(tmp_path, size=48, frames=(2, 4), saturated=None).draw(rng(0), 4)
    assert batch.views[:, 0].mean() > 600


def test_wrong_stacks_are_said_in_one_line(tmp_path, simulated):
    def error(kind, words, **options):
        with pytest.raises(kind, match=words) as found:
            BurstStacks(tmp_path / "here", **options).draw(rng(0), 1)
        assert isinstance(found.value, L1bsrGeoError)
        assert "\n" not in str(found.value)

    error(MissingInputError, "is no folder")
    (tmp_path / "here").mkdir()
    error(MissingInputError, "holds no stacks;")
    error(BadOptionError, "split is dev; train, val, test", split="dev")
    file = tmp_path / "here" / "city.npy"
    np.save(file, simulated[0].counts)
    error(BadInputError, "has no number in its name", split="val")
    error(BadInputError, r"6 frames of 96 x 96; .* 2 frames of 128 x 128", size=128)
    error(BadOptionError, "frames are 5 to 4", frames=(5, 4))
    (tmp_path / "here" / "city.json").write_text('{"exposures": [1, 2]}')
    error(BadInputError, r"city\.json tells 2 exposures of the 6 frames of city\.npy")
    (tmp_path / "here" / "city.json").write_text("[1, 2")
    error(BadInputError, r"city\.json tells no exposures \(JSONDecodeError")
    np.save(file, simulated[0].counts[0])
    error(BadInputError, "1 frames of 96 x 96")
    file.write_bytes(b"no array")
    error(BadInputError, "cannot be read as a numpy array")


def test_motion_seen_from_another_frame_is_the_way_over_the_first():
    random = rng(5)
    nodes = ndimage.gaussian_filter(random.standard_normal((3, 2, 9, 9)), (0, 0, 1.5, 1.5))
    nodes[0] = 0
    affine = 1e-3 * random.standard_normal((3, 2, 3))
    affine[:, :, 2] = random.uniform(-0.5, 0.5, (3, 2))
    affine[0] = 0
    offsets = np.array([[0, 0], [3, -5], [-7, 40]])
    dense = FlowField(nodes.astype(np.float32) * 0.3, 16, (8, 8))
    flow = BurstFlow(offsets, affine, (64, 64), dense)
    whole = Window(0, 0, 128, 128)
    to_1, to_2 = flow.read(whole)[1:]
    from_2 = seen_from(flow, [2, 1, 0])
    assert not from_2.read(whole)[0].any()
    assert np.abs(from_2.affine[:, :, 2]).max() <= 0.5
    # pixels p of frame 0 are at q of frame 2; from there the motion must lead to where 1 sees p
    y, x = np.mgrid[:128, :128] + 0.0
    at = [y + to_2[1], x + to_2[0]]
    inside = (at[0] > 0) & (at[0] < 127) & (at[1] > 0) & (at[1] < 127)
    for t, expected in ((1, to_1 - to_2), (2, -to_2)):
        field = from_2.read(whole)[t]
        got = [ndimage.map_coordinates(f, at, order=1) for f in field]
        assert np.abs(np.stack(got) - expected)[:, inside].max() < 0.02


# the user's own bursts


@pytest.fixture(scope="module")
def collect(tmp_path_factory):
    return write_skysat_collect(
        tmp_path_factory.mktemp("collect"),
        scene_on_map(made_city((620, 420), seed=2)),
        frames=7,
        shape=(128, 144),
        exposures=(1.0, 0.5, 1.0, 1.5, 1.0, 0.5, 1.0),
        seed=3,
    )


def pixels_of(collect):
    return [rasterio.open(collect.folder / f"{name}.tif").read(1) for name in collect.names]


def test_flow_of_a_collect_is_that_of_its_true_cameras(collect):
    images = pixels_of(collect)
    source = OwnBursts(collect.folder, size=48, frames=(3, 7), turned=False)
    y, x = np.mgrid[:48, :48] + 0.5
    for seed in range(3):
        batch = source.draw(rng(seed), 3)
        assert not batch.views[:, 0].isnan().any()
        for k, views in enumerate(batch.views[:, :, 0].numpy()):
            assert np.isfinite(views).mean((1, 2)).min() >= 0.5
            at = [find(view, images) for view in views]
            r, top, left = at[0]
            lon, lat = collect.cameras[r].localize(x + left, y + top, 0.0)
            for t, (frame, top, left) in enumerate(at):
                to_x, to_y = collect.cameras[frame].project(lon, lat, 0.0)
                error = batch.flow[k, t, 0].numpy() - np.stack([to_x - left - x, to_y - top - y])
                assert np.median(np.hypot(*error)) < 0.05
            told = np.array([collect.exposures[frame] for frame, _, _ in at])
            assert batch.exposures[k].numpy() == pytest.approx(told / told[0])


def test_runs_are_cut_into_bursts_that_hold_every_frame(collect):
    source = OwnBursts([collect.folder], size=48, frames=(2, 3))
    assert [burst.length for burst in source.bursts] == [3, 3, 3]
    frames = [burst.read().attrs["frames"] for burst in source.bursts]
    assert {name for names in frames for name in names} == set(collect.names)
    assert same(source.draw(rng(1), 2), OwnBursts(collect.folder, 48, (2, 3)).draw(rng(1), 2))


def test_a_stack_of_ones_own_is_a_burst(tmp_path, simulated):
    np.save(tmp_path / "mine.npy", simulated[0].counts)
    source = OwnBursts(tmp_path / "mine.npy", size=48, frames=(2, 4), turned=False)
    with pytest.warns(L1bsrGeoWarning, match="taken as equal"):
        batch = source.draw(rng(0), 2)
    assert batch.exposures is None
    assert all(_frames_of(v, simulated[0].counts) for v in batch.views[:, :, 0].numpy())


def test_wrong_bursts_are_said_in_one_line(tmp_path, collect):
    with pytest.raises(MissingInputError, match="is not there"):
        OwnBursts(tmp_path / "none")
    with pytest.raises(MissingInputError, match="holds no frames"):
        OwnBursts(tmp_path)
    with pytest.raises(BadOptionError, match="there is no source"):
        OwnBursts([])
    with pytest.raises(BadInputError, match="show no 2 frames of the same 200 x 200"):
        OwnBursts(collect.folder, size=200, frames=(2, 3)).draw(rng(0), 1)


# pairs of crops


PAIR = (144, 128)


def affine_of(view, band):
    """(2, 3): pixel q of the crop shows the scene at this of (x, y, 1)."""
    random = rng((view, band, 11))
    motion = np.eye(2, 3)
    if (view, band) != (0, 1):
        motion[:, :2] += random.uniform(-4e-3, 4e-3, (2, 2))
        motion[:, 2] = random.uniform(-2, 2, 2) + (view and np.array([4.5, -3.5]))
    return motion


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two pairs of four bands that differ in contrast, noisy and aliased."""
    folder = tmp_path_factory.mktemp("pairs")
    y, x = np.mgrid[: PAIR[0], : PAIR[1]] + 0.5
    for k in range(2):
        size = (2 * PAIR[0] + 80, 2 * PAIR[1] + 80)
        common = made_city(size, seed=20 + k, largest=40) / 8
        own = made_city(size, seed=30 + k) / 8
        scene = [common, common, 0.8 * common + 0.2 * own, 700 - 0.8 * common + 0.3 * own]
        for view in (0, 1):
            random = rng((k, view))
            crop = np.empty((4, *PAIR), np.uint16)
            for b, fine in enumerate(scene):
                at_x, at_y = np.tensordot(affine_of(view, b), [x, y, np.ones_like(x)], 1)
                blurred = ndimage.gaussian_filter(fine, 1.05)
                places = [2 * at_y - 0.5 + 40, 2 * at_x - 0.5 + 40]
                clean = ndimage.map_coordinates(blurred, places, order=3)
                noise = random.standard_normal(PAIR) * np.sqrt(0.01 * clean + 0.1)
                crop[b] = np.clip(np.rint(clean + noise), 1, 4000)
            write_tif(folder / f"town{k}_{view}.tif", crop)
    return folder


def write_tif(path, pixels):
    path.parent.mkdir(exist_ok=True)
    with warnings.catch_warnings(action="ignore"), rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[2], height=pixels.shape[1],
        count=len(pixels), dtype=pixels.dtype,
    ) as out:  # fmt: skip
        out.write(pixels)


def read_image(path):
    with warnings.catch_warnings(action="ignore"), rasterio.open(path) as raster:
        return raster.read()


def test_flow_of_pairs_is_the_true_one_of_every_band(pairs):
    files = {k: [read_image(pairs / f"town{k}_{v}.tif") for v in (0, 1)] for k in (0, 1)}
    batch = OverlapPairs(pairs, size=96, turned=False).draw(rng(0), 5)
    assert batch.views.shape == (5, 2, 4, 96, 96)
    assert batch.exposures is None
    y, x = np.mgrid[:96, :96] + 0.5
    seen = set()
    for views, flow in zip(batch.views.numpy(), batch.flow.numpy(), strict=True):
        k, top, left = find(views[0, 1], [files[k][0][1] for k in (0, 1)])
        seen.add(k)
        for v, b in np.ndindex(2, 4):
            window = np.s_[top : top + 96, left : left + 96]
            assert np.array_equal(views[v, b], files[k][v][b][window])
            motion = affine_of(v, b)
            apart = np.stack([x + left, y + top]) - motion[:, 2, None, None]
            there = np.tensordot(np.linalg.inv(motion[:, :2]), apart, 1)
            error = flow[v, b] - (there - np.stack([x + left, y + top]))
            assert np.median(np.hypot(*error)) < 0.05, (v, b)
    assert seen == {0, 1}


def test_pairs_may_lie_in_two_folders_and_are_drawn_alike(pairs, tmp_path):
    for view, name in enumerate(("left", "right")):
        crop = read_image(pairs / f"town0_{view}.tif")
        write_tif(tmp_path / name / "town.tif", crop)
        write_tif(tmp_path / "one" / f"town_{view}.tif", crop)
    parted, together = OverlapPairs(tmp_path), OverlapPairs(str(tmp_path / "one"))
    assert len(parted.overlaps) == len(together.overlaps) == 1
    parted.draw(rng(4), 1)
    assert same(parted.draw(rng(3), 2), together.draw(rng(3), 2))


def test_pixels_without_data_are_nan_and_never_in_the_first_view(pairs, tmp_path):
    for view in (0, 1):
        crop = read_image(pairs / f"town0_{view}.tif")
        crop[2, :30] = 0 if view == 0 else 65535
        write_tif(tmp_path / f"gap_{view}.tif", crop)
    batch = OverlapPairs(tmp_path, size=64, turned=False).draw(rng(0), 12)
    assert not batch.views[:, 0].isnan().any()
    assert batch.views.nan_to_num().max() < 4000
    crop[2] = 0
    write_tif(tmp_path / "gap_1.tif", crop)
    source = OverlapPairs(tmp_path, size=64)
    with (
        pytest.warns(L1bsrGeoWarning, match=r"left out: B04 of the other detector could not be"),
        pytest.warns(L1bsrGeoWarning, match=r"band B04 of the other detector .* to B04 anywhere"),
        pytest.raises(BadInputError, match="show no 64 x 64 pixels without a gap"),
    ):
        source.draw(rng(0), 1)


def test_wrong_pairs_are_said_in_one_line(pairs, tmp_path):
    here = tmp_path / "here"

    def error(kind, words):
        with pytest.raises(kind, match=words) as found:
            OverlapPairs(here)
        assert "\n" not in str(found.value)

    error(MissingInputError, "is no folder")
    here.mkdir()
    error(MissingInputError, "holds no pairs")
    crop = read_image(pairs / "town0_0.tif")
    write_tif(here / "a_0.tif", crop)
    error(MissingInputError, r"a_0\.tif has no partner .*a_1\.tif")
    write_tif(here / "a_1.tif", crop[:, :120])
    error(BadInputError, "144 x 128 pixels and its partner a_1.tif 120 x 128")
    write_tif(here / "a_1.tif", crop[:3])
    error(BadInputError, r"has 3 bands of 144 x 128; B02, B03, B04, B08 of at least 96")
    (here / "a_1.tif").write_bytes(b"no image")
    error(BadInputError, "cannot be opened as an image")


# the user's own Sentinel-2 products


OVERPASS = Overpass(lon=5.02, lat=44.75, detectors=(5, 6), granules=1, granule_lines=642)
LINES = 224


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """Detectors 5 and 6 over hills of 150 to 900 m, where both see them; and the hills."""
    models = {(d, b): OVERPASS.model(d, b) for d in (5, 6) for b in TEN_METRE_BANDS}
    lon, lat = models[5, "B03"].localize(2551.5, 0.5, 0.0)
    shift = int(np.rint(models[6, "B03"].project(lon, lat, 0.0)[1] - 0.5))
    top = max(0, -shift)
    windows = {5: Window(2390, top, 162, LINES), 6: Window(0, top + shift, 185, LINES)}
    views = [([models[d, b] for b in TEN_METRE_BANDS], windows[d]) for d in (5, 6)]
    heights = (0.0, 1000.0)
    low = np.array([map_bounds(*v, "EPSG:32631", heights) for v in views])
    degrees = np.array([lonlat_bounds(*v, heights) for v in views])
    around = (*(degrees.min(0)[:2] - 0.02), *(degrees.max(0)[2:] + 0.02))
    hills = relief(tuple(float(v) for v in around), 3)
    scene = procedural_scene((*low.min(0)[:2], *low.max(0)[2:]), "EPSG:32631", 3)
    folder = tmp_path_factory.mktemp("product")
    with TemporaryDirectory() as metadata:
        write_metadata(Path(metadata), OVERPASS)
        safe = write_l1b_product(
            folder, scene.seen_by(), models, metadata, window=windows, elevation=hills, seed=1
        )
    return safe, models, hills


def test_flow_of_an_overlap_is_that_of_the_true_models_over_hills(product):
    safe, models, hills = product
    image, other = (
        read_image(next(safe.rglob(f"*_D{d:02d}*_B03.jp2")))[0] - 100.0  # RADIO_ADD_OFFSET
        for d in (5, 6)
    )
    source = OwnOverlaps(safe, size=88, turned=False, options={"lines": (0, 256)})
    batch = source.draw(rng(0), 3)
    y, x = np.mgrid[:88, :88] + 0.5
    errors = []
    for views, flow in zip(batch.views.numpy(), batch.flow.numpy(), strict=True):
        assert np.isfinite(views[0]).all()
        _, top, left = find(views[0, 1], [image])
        _, top_6, left_6 = find(views[1, 1], [other])
        ground = localize_on_terrain(models[5, "B03"], x + left, y + top, hills)
        for v, b in np.ndindex(2, 4):
            to_x, to_y = models[5 + v, TEN_METRE_BANDS[b]].project(*ground)
            row, column = (top, left) if v == 0 else (top_6, left_6)
            true = np.stack([to_x - column - x, to_y - row - y])
            errors.append((v, b, np.median(np.hypot(*(flow[v, b] - true)))))
    worst = np.array([[max(e for w, c, e in errors if (w, c) == (v, b)) for b in range(4)]
                      for v in (0, 1)])  # fmt: skip
    assert worst[0].max() < 0.05
    assert np.median([e for v, _, e in errors if v]) < 0.05
    assert worst[1].max() < 0.1


def test_wrong_products_are_said_in_one_line(product, tmp_path):
    safe, _, _ = product
    with pytest.raises(MissingInputError, match=r"has detectors \(5, 6\), not \[7\]"):
        OwnOverlaps(safe, detectors=(5, 7))
    with pytest.raises(BadInputError, match="has no two neighbouring detectors"):
        OwnOverlaps(safe, detectors=(5,))
    with pytest.raises(MissingInputError):
        OwnOverlaps(tmp_path / "none.SAFE")
    with pytest.raises(BadInputError, match="show no 200 x 200 pixels"):
        OwnOverlaps(safe, size=200, options={"lines": (0, 300)}).draw(rng(0), 1)
