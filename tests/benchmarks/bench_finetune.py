"""What fine-tuning on the scene itself changes, against the truth of simulated scenes.

    python tests/benchmarks/bench_finetune.py --json out.json            half an hour on 2 cores

``dsa``: bursts of 15 frames of 160 x 160 px that match what the network was trained for (noise
2.5), and such that do not: behind another blur (a Gaussian of 0.4 px in all frames, which the truth
has too), with noise 0.7, with noise 4. The frames go through a file and the command's own function,
which registers them; then both weights restore all 15 with their true motion.

``l1bsr``: overlaps of two detectors of 320 x 320 px, with the instrument's noise and MTF, behind
another blur, with a third of its noise, with four times its noise. Motion is the true one; both
weights restore the first view.

Scenes are photographs that were not trained on, or made up where those are not there. PSNR with a
peak of 3400 DN (400 DN, mean over bands), 16 fine pixels of border left out. A matching network may
lose 0.02 dB at most, a mismatched one must gain on the mean.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.models.checkpoint import find_weights, read_facts
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.pipelines.finetune import choose_objective, choose_schedule, finetune
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city, scene_from_photograph
from l1bsr_geo.simulation.multiband import CROPS, bands_from_photograph, match_crop
from l1bsr_geo.simulation.overlap_motion import BandShifts
from l1bsr_geo.simulation.overlaps import needed_scene, simulate_overlap
from l1bsr_geo.simulation.scenes import MTF, TEN_METRE_BANDS, procedural_scene
from l1bsr_geo.training.checkpoints import write_weights
from l1bsr_geo.training.finetune import adapt
from l1bsr_geo.training.own_overlaps import HeldPixels
from l1bsr_geo.training.scene_overlaps import part_overlaps
from tests.benchmarks.held_out import PHOTOGRAPHS, name_scene, tell
from tests.synthetic.fine_scenes import AERIAL

CASES = {
    "dsa": {
        "matching": {"noise": 2.5},
        "another blur": {"noise": 2.5, "blur": 0.4},
        "noise 0.7": {"noise": 0.7},
        "noise 4": {"noise": 4.0},
    },
    "l1bsr": {
        "matching": {"noise": 1.0},
        "another blur": {"noise": 1.0, "blur": 0.4},
        "noise / 3": {"noise": 1 / 3},
        "noise x 4": {"noise": 4.0},
    },
}
FRAMES, SIDE = 15, 160
OVERLAP = (320, 320)
BORDER = 16


def crop(image, shape):
    """The middle of an image (..., rows, columns)."""
    top, left = ((n - m) // 2 for n, m in zip(image.shape[-2:], shape, strict=True))
    return image[..., top : top + shape[0], left : left + shape[1]]


def photograph(k):
    """(3, rows, columns), or None where there is none."""
    path = AERIAL / PHOTOGRAPHS[k]
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)


def psnr(image, truth, peak):
    """Of bands (C, rows, columns), their mean [dB]."""
    error = (image - truth)[:, BORDER:-BORDER, BORDER:-BORDER] / peak
    return float(np.mean(-10 * np.log10(np.square(error, dtype=np.float64).mean((1, 2)))))


def tune_burst(k, start, minutes, folder, noise, blur=0.0):
    """What came of it, and PSNR before and after."""
    side, picture = 2 * (SIDE + 40), photograph(k)
    if picture is None:
        fine = made_city((side, side), 300 + k)
    else:
        fine = crop(scene_from_photograph(picture.mean(0)), (side, side))
    if blur:
        fine = ndimage.gaussian_filter(fine, 2 * blur)
    burst = simulate_burst(fine, (SIDE, SIDE), FRAMES, noise=noise, seed=k)
    np.save(folder / "burst.npy", burst.counts)
    out = folder / "adapted.safetensors"
    done = finetune(folder / "burst.npy", out, weights=start, minutes=minutes, device="cpu")
    views, flow = burst.frames[None, :, None], burst.flow[None, :, None]
    fine = [Model("dsa", weights=w, device="cpu").restore(views, flow)[0] for w in (start, out)]
    return done.adaptation, [psnr(image, burst.truth[None], 3400.0) for image in fine]


def tune_overlap(k, start, minutes, folder, noise, blur=0.0):
    """The same, of an overlap."""
    picture, needed = photograph(k), needed_scene(OVERLAP, BandShifts())
    if picture is None:
        bands = procedural_scene((0, 0, 5.0 * needed[1], 5.0 * needed[0]), "EPSG:32631", k).pixels
    else:
        infrared = "seneca" in PHOTOGRAPHS[k]
        bands = bands_from_photograph(picture, "infrared" if infrared else "colour", 2)
    scene = match_crop(crop(bands, needed), CROPS[k % len(CROPS)])
    kept = float(np.exp(-2 * (np.pi * blur * 0.5) ** 2))  # at the Nyquist frequency
    mtf = {band: kept * value for band, value in MTF.items()}
    made = simulate_overlap(scene, OVERLAP, noise=noise, mtf=mtf, seed=k)
    grids = dict.fromkeys(TEN_METRE_BANDS, GeoGrid(OVERLAP, None))
    stacks = tuple(
        BandStack(dict(zip(TEN_METRE_BANDS, map(HeldPixels, view), strict=True)), grids, "B03")
        for view in made.views
    )
    flow = FlowField(made.flow.reshape(8, 2, *OVERLAP), 1.0, (0.5, 0.5))
    samples, held_back = part_overlaps([(stacks, flow)])
    network, out = find_entry("l1bsr").load(start), folder / "adapted.safetensors"
    done = adapt(
        network,
        choose_objective(network, read_facts(start), samples),
        samples,
        held_back,
        choose_schedule(),
        folder / "run",
        device="cpu",
        minutes=minutes,
    )
    write_weights(out, network, read_facts(start))
    views, motion = made.views[None, :1].astype(np.float32), made.flow[None, :1]
    fine = [Model("l1bsr", weights=w, device="cpu").restore(views, motion)[0] for w in (start, out)]
    return done, [psnr(image, made.truth, 400.0) for image in fine]


def measure(model, case, k, start, minutes):
    tune = {"dsa": tune_burst, "l1bsr": tune_overlap}[model]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a stack says no exposures
        done, (before, after) = tune(k, start, minutes, Path(folder), **CASES[model][case])
    return {
        "scene": name_scene(k),
        "before": before,
        "after": after,
        "change": after - before,
        "kept": done.kept,
        "loss_gain": done.gain.mean,
        "loss_gain_error": done.gain.error,
        "iteration": done.iteration,
        "iterations": done.iterations,
        "ended": done.ended,
        "seconds": time.perf_counter() - begin,
    }


def table(figures):
    """Markdown."""
    lines = [
        "| case | before | after [dB] | change, mean | least | most [dB] | kept | iterations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, runs in figures.items():
        before, after, change, iterations = (
            [run[name] for run in runs] for name in ("before", "after", "change", "iterations")
        )
        means = f"{statistics.mean(before):.2f} | {statistics.mean(after):.2f}"
        changes = f"{statistics.mean(change):+.3f} | {min(change):+.3f} | {max(change):+.3f}"
        kept = sum(run["kept"] for run in runs)
        count = f"{min(iterations)} to {max(iterations)}"
        lines.append(f"| {case} | {means} | {changes} | {kept} of {len(runs)} | {count} |")
    return "\n".join(lines)


def judge(figures):
    """Whether the promise holds, case by case."""
    change = {case: [run["change"] for run in runs] for case, runs in figures.items()}
    return {
        case: min(v) >= -0.02 if case == "matching" else statistics.mean(v) > 0
        for case, v in change.items()
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", choices=list(CASES), default="dsa")
    parser.add_argument("--weights", type=Path, help="start; those that ship by default")
    parser.add_argument("--minutes", type=float, default=1.5, help="of training, for each scene")
    parser.add_argument("--scenes", type=int, default=4, help=f"{len(PHOTOGRAPHS)} at most")
    parser.add_argument("--cases", nargs="*", help="all by default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start = options.weights or find_weights(options.model, None, None)
    figures = {}
    for case in options.cases or CASES[options.model]:
        figures[case] = []
        for k in range(options.scenes):
            figures[case].append(measure(options.model, case, k, start, options.minutes))
            print(case, json.dumps(figures[case][-1]), file=sys.stderr, flush=True)
    print(table(figures))
    results = {
        "model": options.model,
        "start_sha256": hash_file(start),
        "minutes": options.minutes,
        "machine": {"cpus": os.cpu_count(), "threads": torch.get_num_threads()},
        "holds": judge(figures),
        "cases": figures,
    }
    tell(results, options.json)


if __name__ == "__main__":
    main()
