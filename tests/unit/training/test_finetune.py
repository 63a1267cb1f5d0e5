"""Fine-tuning on a scene: what is held back stays held back, and what is kept is truly better."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from torch import nn
from torch.nn import functional

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.bursts import Burst, BurstScene
from l1bsr_geo.images.flow import BurstFlow, FlowField
from l1bsr_geo.models.dsa import make_spec
from l1bsr_geo.models.shift_and_add import ShiftAndAdd
from l1bsr_geo.simulation.bursts import noise_sigma, simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.dsa import DSAObjective
from l1bsr_geo.training.finetune import ForetellsHeldBack, Gain, HeldBack, adapt
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.own_overlaps import HeldPixels
from l1bsr_geo.training.scene_bursts import ForetellsFrame, part_burst, read_crop
from l1bsr_geo.training.scene_overlaps import part_overlaps
from l1bsr_geo.training.schedule import Schedule


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rng(seed):
    return np.random.default_rng(seed)


# the decision


def test_gain_is_a_share_of_the_loss_with_its_standard_error():
    gain = Gain.of(np.array([2.0, 4.0, 6.0]), np.array([1.8, 3.6, 6.0]))
    gained = np.array([0.2, 0.4, 0.0]) / 4
    assert gain.mean == pytest.approx(0.05)
    assert gain.error == pytest.approx(stats.sem(gained))
    assert gain.places == 3


@pytest.mark.parametrize("places", [4, 11, 64])
def test_chance_is_taken_for_a_gain_as_rarely_as_it_should(places):
    """Without any gain: once in 44, however few the places are."""
    random, trials = rng(places), 2000
    noise = random.standard_normal((trials, places))
    taken = sum(Gain.of(np.full(places, 10.0), 10.0 + n).significant for n in noise)
    expected = trials * stats.norm.sf(2)
    assert abs(taken - expected) < 4 * math.sqrt(expected)


def test_one_place_proves_nothing_and_a_loss_is_no_gain():
    assert not Gain.of(np.array([2.0]), np.array([1.0])).significant
    assert not Gain.of(np.array([2.0, 2.0, 2.1]), np.array([3.0, 3.0, 3.1])).significant
    assert Gain.of(np.array([2.0, 2.0, 2.1]), np.array([1.0, 1.01, 1.0])).significant


# the automatic stop, on a problem whose solution is known in closed form: the best factor for
# pixels of variance 1 with noise of variance v is 1 / (1 + v)


class Scaled(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(weight)))

    def risk(self, variance):
        w = self.weight.item()
        return (1 - w) ** 2 + w * w * variance


class Noisy:
    """Pixels seen twice, each time with noise of its own."""

    def __init__(self, variance, size=12):
        self.sigma, self.size = math.sqrt(variance), size

    def draw(self, random, count):
        shape = (count, 1, 1, self.size, self.size)
        clean, one, two = (random.standard_normal(shape, np.float32) for _ in range(3))
        views, target = clean + self.sigma * one, clean + self.sigma * two
        return Batch(torch.from_numpy(views), truth=torch.from_numpy(target)[:, 0])

    def hold_back(self, stop, decide, seed=99):
        places = [self.draw(rng((seed, k)), 1) for k in range(stop + decide)]
        return HeldBack(places[:stop], places[stop:])


class Foretells:
    def loss(self, network, batch, random):
        return (network.weight * batch.views[:, 0] - batch.truth).square().mean(), {}


FORETELLS = ForetellsHeldBack(Foretells(), Foretells())


def schedule(**options):
    given = {"iterations": 250, "batch": 2, "lr": 0.02, "final_lr": 0.02, "ema": 0.9}
    return Schedule(**given | {"validate_every": 10, "patience": 3, "precision": "fp32"} | options)


def run(network, variance, folder, stop=6, decide=12, seed=0, **options):
    source = Noisy(variance)
    held_back = source.hold_back(stop, decide, seed=1000 + seed)
    return adapt(
        network, FORETELLS, source, held_back, schedule(seed=seed, **options), folder, device="cpu"
    )


def decibels(before, after):
    return 10 * math.log10(before / after)


def test_a_network_that_does_not_match_is_adapted_and_stops_by_itself(tmp_path):
    for variance in (0.05, 1.0):
        network = Scaled(1 / (1 + 0.3))
        before = network.risk(variance)
        done = run(network, variance, tmp_path / str(variance), decide=24)
        assert done.kept
        assert done.ended == "no gain"
        assert done.iteration <= done.iterations < 250
        best = 1 / (1 + variance)
        assert abs(network.weight.item() - best) < 0.3 * abs(1 / 1.3 - best)
        assert decibels(before, network.risk(variance)) > 0.2
        assert not network.weight.requires_grad


def test_a_network_that_matches_is_never_made_worse(tmp_path):
    """Noisy steps spoil the optimum; what is held back finds that out."""
    spoilt = 0
    for seed in range(6):
        network, folder = Scaled(1 / (1 + 0.3)), tmp_path / str(seed)
        start, before = network.weight.item(), network.risk(0.3)
        done = run(network, 0.3, folder, seed=seed, lr=0.1, final_lr=0.1, patience=2, batch=1)
        last = load_file(folder / "last.safetensors")["weight"]
        spoilt += decibels(before, Scaled(last).risk(0.3)) < -0.02
        assert decibels(before, network.risk(0.3)) >= -0.02
        if not done.kept:
            assert network.weight.item() == start
    assert spoilt >= 2


def test_what_was_learnt_is_given_up_where_the_decision_is_against_it(tmp_path):
    """Places to stop by that are unlike the rest of the scene choose what is wrong for it."""
    network = Scaled(1 / (1 + 0.3))
    start = network.weight.item()
    misled = HeldBack(Noisy(1.0).hold_back(6, 0).stop, Noisy(0.3).hold_back(0, 12).decide)
    done = adapt(network, FORETELLS, Noisy(1.0), misled, schedule(), tmp_path, device="cpu")
    assert not done.kept
    assert done.gain.mean < 0
    assert done.iteration > 0
    assert network.weight.item() == start


def test_what_is_random_about_a_score_is_the_same_each_time():
    class Chance:
        def loss(self, network, batch, random):
            return torch.tensor(random.random()), {}

    objective = ForetellsHeldBack(Chance(), Chance())
    batch = Noisy(1.0).draw(rng(0), 1)
    assert objective.score(None, batch) == objective.score(None, batch)


# bursts


class Filtered(nn.Module):
    """Shift-and-add, and a filter of its detail with taps that depend on the number of frames."""

    def __init__(self, taps=5):
        super().__init__()
        self.spec = make_spec()
        self.filter = nn.Conv2d(2, 1, taps, bias=False)

    def parts(self, views, flow):
        added = ShiftAndAdd()(views, flow)
        reach = self.filter.kernel_size[0] // 2
        padded = functional.pad(added, (2 * reach,) * 4, mode="reflect")
        detail = padded[..., reach:-reach, reach:-reach] - functional.avg_pool2d(
            padded, self.filter.kernel_size, 1
        )
        return added, torch.cat([detail, detail * (8 / views.shape[1])], 1)

    def forward(self, views, flow=None, *, exposures=None):
        added, detail = self.parts(views, flow)
        return added + self.filter(detail)

    def fit(self, bursts):
        """The best taps for bursts with truth: least squares."""
        rows, values = [], []
        inside = np.s_[..., 16:-16, 16:-16]
        for burst in bursts:
            for frames in (5, 7, 10):
                added, detail = self.parts(*tensors(burst, frames))
                seen = functional.unfold(detail, self.filter.kernel_size)
                seen = seen.view(-1, *added.shape[-2:])
                rows.append(seen[inside].flatten(1).T)
                values.append((truth_of(burst) - added)[inside].flatten())
        solved = torch.linalg.lstsq(torch.cat(rows).double(), torch.cat(values).double()[:, None])
        self.filter.weight.data = solved.solution.float().view_as(self.filter.weight)
        return self


def truth_of(burst):
    return torch.from_numpy(burst.truth)[None, None] / 3400


def tensors(burst, frames):
    views = torch.from_numpy(burst.frames[:frames])[None, :, None] / 3400
    return views, torch.from_numpy(burst.flow[:frames])[None, :, None]


SIDE = 96


def burst_of(seed, noise=2.5):
    fine = made_city((2 * SIDE + 80,) * 2, seed)
    return simulate_burst(fine, (SIDE, SIDE), 10, noise=noise, seed=seed)


def registered(burst):
    """As a scene, with the true motion."""
    count, side = len(burst.frames), burst.frames.shape[1]
    affine = np.zeros((count, 2, 3))
    affine[:, :, 2] = burst.flow[:, :, 0, 0]
    return scene_of(
        burst.counts, BurstFlow(np.zeros((count, 2), np.int64), affine, (side / 2,) * 2)
    )


def scene_of(frames, flow):
    count = len(frames)
    burst = Burst(
        tuple(HeldPixels(f) for f in frames),
        (GeoGrid(frames[0].shape, None),) * count,
        (1.0,) * count,
        attrs={"frames": tuple(map(str, range(count)))},
    )
    return BurstScene(burst, flow)


def psnr(network, burst):
    with torch.inference_mode():
        error = network(*tensors(burst, len(burst.frames))) - truth_of(burst)
    return -10 * float(error[..., 16:-16, 16:-16].square().mean().log10())


@pytest.fixture(scope="module")
def trained():
    return Filtered().fit([burst_of(seed) for seed in range(4)]).filter.weight.detach()


def tune(trained, burst, folder):
    network = Filtered()
    network.filter.weight.data = trained.clone()
    before = psnr(network, burst)
    source, held_back = part_burst(registered(burst), Window(0, 0, SIDE, SIDE))
    objective = ForetellsHeldBack(DSAObjective(), ForetellsFrame())
    numbers = schedule(iterations=60, batch=4, lr=1e-3, final_lr=1e-3)
    done = adapt(network, objective, source, held_back, numbers, folder, device="cpu")
    return done, psnr(network, burst) - before


def test_a_matching_burst_is_not_made_worse(trained, tmp_path):
    done, change = tune(trained, burst_of(20), tmp_path)
    assert change >= -0.02
    assert done.kept or change == 0


def test_a_burst_of_less_noise_is_made_better(trained, tmp_path):
    done, change = tune(trained, burst_of(21, 0.7), tmp_path)
    assert done.kept
    assert change > 0.1


def test_a_burst_of_more_noise_is_not_made_worse(trained, tmp_path):
    """What is held back is noisier, too: a small gain is not beyond doubt, and then not kept."""
    done, change = tune(trained, burst_of(21, 6.0), tmp_path)
    assert change >= -0.02
    assert done.kept or change == 0


@pytest.mark.parametrize("count", [5, 9, 15])
def test_what_is_held_back_never_reaches_the_training(count):
    """Every pixel tells its frame and its ground."""
    y, x = np.mgrid[:176, :200]
    offsets = np.array([[0, 0], *rng(1).integers(-6, 7, (count - 1, 2))])
    frames = [  # 200 DN for each frame, and 1 / 300 for each pixel of the ground
        ((60_000 * t + 300 * (y + 20 - dy) + x + 20 - dx) / 300).astype(np.float32)
        for t, (dx, dy) in enumerate(offsets)
    ]
    flow = BurstFlow(offsets, np.zeros((count, 2, 3)), (100.0, 88.0))
    source, held_back = part_burst(scene_of(frames, flow), Window(8, 6, 180, 164))

    def told(views):
        known = torch.cat([v[~v.isnan()] for v in views])
        return set((300 * known.double()).round().int().unique().tolist())

    trained = told([source.draw(rng(seed), 3).views for seed in range(50)])
    targets = [[place.views[0, -1] for place in part] for part in vars(held_back).values()]
    stop, decide = map(told, targets)
    assert not stop & decide
    assert not (stop | decide) & trained
    ground = {300 * (r + 20) + c + 20 for r in range(6, 170) for c in range(8, 188)}
    assert {v % 60_000 for v in stop | decide} <= ground
    assert len(stop | decide) > 0.75 * len(ground)
    assert len({v // 60_000 for v in stop | decide}) == {5: 1, 9: 4, 15: 8}[count]
    assert {v // 60_000 for v in trained} == set(range(count)) - ({1} if count == 5 else set())


def test_places_are_foretold_on_the_grid_of_the_reference_from_all_other_frames():
    frames = [np.full((112, 128), 100 + t, np.uint16) for t in range(15)]
    flow = BurstFlow(np.zeros((15, 2), np.int64), np.zeros((15, 2, 3)), (64.0, 56.0))
    _, held_back = part_burst(scene_of(frames, flow), Window(0, 0, 128, 112))
    for place in [*held_back.stop, *held_back.decide]:
        views = place.views[0].flatten(1)
        target = int(views[-1].nan_to_num(0).amax())
        seen = views[:-1].amax(1).int().tolist()
        assert seen == [t for t in range(100, 115) if t != target]
        assert views[-1].isfinite().sum() == 28 * 28  # without the margin
        assert min(place.views.shape[-2:]) >= 28 + 16


def test_the_truth_foretells_a_frame_up_to_its_noise():
    """In place of a restored image, with exposures that the product tells wrong by 5 %."""
    fine = made_city((2 * SIDE + 80,) * 2, 5)
    steps = (1.0, 1.4, 0.7, 1.0, 0.7, 1.4)
    burst = simulate_burst(
        fine, (SIDE, SIDE), 6, noise=1, exposures=steps, exposure_error=0.05, seed=5
    )
    scene = registered(burst)
    scene = replace(scene, burst=replace(scene.burst, exposures=tuple(burst.exposures)))
    batch = read_crop(scene, [0, 1, 2, 4, 5, 3], Window(20, 16, 48, 48))
    truth = truth_of(burst)[..., 32:128, 40:136]
    margin = torch.ones(48, 48, dtype=torch.bool)
    margin[8:-8, 8:-8] = False  # where a frame looks beyond the restored image
    batch.views[:, -1, :, margin] = torch.nan

    class Knows(nn.Module):
        spec = make_spec()

        def forward(self, views, flow, *, exposures):
            assert views.shape[1] == exposures.shape[1] == flow.shape[1] == 5
            return truth

    def loss_of(held_back):
        loss, _ = ForetellsFrame().loss(Knows(), held_back, rng(0))
        return float(loss)

    signal = burst.truth[::2, ::2]
    variance = float(np.square(noise_sigma(burst.true_exposures[3] * signal)).mean())
    expected = variance / burst.true_exposures[3] ** 2 / 3400**2
    assert loss_of(batch) == pytest.approx(expected, rel=0.12)
    moved = replace(batch, flow=batch.flow + 0.25)
    assert loss_of(moved) > 1.5 * expected


def test_frames_that_slide_show_the_same_ground_or_nothing():
    y, x = np.mgrid[:80, :120]
    offsets = np.array([[0, 0], [30, -11], [-24, 16]])
    frames = [(200 * (y + 100 - dy) + x + 100 - dx).astype(np.uint16) for dx, dy in offsets]
    flow = BurstFlow(offsets, np.zeros((3, 2, 3)), (60.0, 40.0))
    scene = scene_of(frames, flow)
    crop = read_crop(scene, [2, 0, 1], Window(40, 0, 40, 40))
    assert not crop.views[0, 0].isnan().any()
    known = ~crop.views.isnan()
    assert torch.equal(crop.views[known], crop.views[:, :1].expand_as(crop.views)[known])
    assert known[0, 2].float().mean() == (40 - 11) / 40
    assert not crop.flow.any()
    assert read_crop(scene, [2, 0, 1], Window(0, 0, 40, 40)) is None  # 24 px left of frame 2


def test_whatever_a_method_leaves_out_of_sliding_frames_one_without_gaps_is_fused():
    offsets = np.array([[9 * t, -7 * t] for t in (0, -2, -1, 1, 2, 3, 4)])
    frames = [rng(t).integers(200, 900, (110, 130)).astype(np.uint16) for t in range(7)]
    flow = BurstFlow(offsets, np.zeros((7, 2, 3)), (65.0, 55.0))
    source, _ = part_burst(scene_of(frames, flow), Window(0, 0, 130, 110))
    least, most = source.frames
    objective, gaps = DSAObjective(), []
    for seed in range(30):
        batch = source.draw(rng(seed), 2)
        assert least <= batch.views.shape[1] <= most
        gaps += batch.views.isnan().flatten(2).any(2).sum(1).tolist()
        seen = objective.hold_out(batch, rng(seed)).views
        assert not seen[:, 0].isnan().any()
    assert 0 < max(gaps) <= least // 2


def test_bursts_that_teach_nothing_are_refused_in_one_line():
    flow = BurstFlow(np.zeros((3, 2), np.int64), np.zeros((3, 2, 3)), (48.0, 48.0))
    three = scene_of([np.ones((96, 96), np.uint16)] * 3, flow)
    with pytest.raises(BadInputError, match="3 frames can be used; 4 are needed"):
        part_burst(three, Window(0, 0, 96, 96))
    flow = BurstFlow(np.zeros((5, 2), np.int64), np.zeros((5, 2, 3)), (48.0, 48.0))
    five = scene_of([np.ones((96, 96), np.uint16)] * 5, flow)
    with pytest.raises(BadInputError, match="60 x 96 pixels is too small"):
        part_burst(five, Window(0, 0, 96, 60))
    bright = scene_of([np.full((96, 96), 4000, np.uint16)] * 5, flow)
    with pytest.raises(BadInputError, match="only 0 places without gaps"):
        part_burst(bright, Window(0, 0, 96, 96))


# overlaps


def overlap_of(rows, columns=150, bands=("B02", "B03", "B04", "B08")):
    """Every pixel of both views tells its place."""
    y, x = np.mgrid[:rows, :columns]
    pixels = (1 + columns * y + x).astype(np.float32)
    stacks = []
    for _ in range(2):
        sources = {band: HeldPixels(pixels) for band in bands}
        grids = {band: GeoGrid((rows, columns), None) for band in bands}
        stacks.append(BandStack(sources, grids, "B03", nodata=0))
    nodes = np.zeros((2 * len(bands), 2, 2, 2), np.float32)
    return tuple(stacks), FlowField(nodes, float(max(rows, columns)))


@pytest.mark.parametrize(("rows", "size"), [(2304, 64), (300, 32)])
def test_lines_held_back_never_reach_the_training(rows, size):
    source, held_back = part_overlaps([overlap_of(rows)])
    assert source.size == size

    def lines(batches):
        views = torch.cat([batch.views for batch in batches])
        return set(((views - 1) // 150).unique().int().tolist())

    places = [*held_back.stop, *held_back.decide]
    held = lines(places)
    trained = lines([source.draw(rng(seed), 8) for seed in range(rows // 32)])
    assert len(held) == pytest.approx(rows / 4, abs=size)
    assert not trained & held
    assert len(trained | held) > 0.9 * rows
    assert len(held_back.decide) >= 4


def test_overlaps_that_teach_nothing_are_refused_in_one_line():
    with pytest.raises(BadInputError, match="too few to judge"):
        part_overlaps([overlap_of(90)])
