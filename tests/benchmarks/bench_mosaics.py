"""Mosaic to mosaic against a network that was trained at the wrong noise, on simulated bursts.

    python tests/benchmarks/bench_mosaics.py --right jdd-10.safetensors --json out.json

Bursts of 12 frames of 192 x 192 px, made from photographs that were not trained on (made-up cities
where they are not there): random affine motion, a Bayer pattern, white noise. The network that
ships was trained with noise up to 5 DN; bursts have 10 by default. It adapts itself to each burst
by the command's own function, which measures the motion on the noisy mosaics.

Rows: bilinear demosaicking; the network as it ships; adapted by mosaic to mosaic; a network trained
with truth at the right noise (``--right``, by recipes/jdd-10.yaml). PSNR of all frames with a peak
of 255 DN, mean over frames and colours, 8 px of border left out. Adapting must gain 0.5 dB over the
network as it ships, on the mean.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.models.checkpoint import find_weights
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.ops.mosaic import demosaick_bilinear
from l1bsr_geo.registration.mosaics import align_mosaics
from l1bsr_geo.restoration.mosaic import MosaicOptions, load_jdd, restore_mosaics
from l1bsr_geo.simulation.mosaics import simulate_mosaics
from l1bsr_geo.training.mosaics import SimulatedMosaics, read_colours
from tests.benchmarks.held_out import PHOTOGRAPHS, name_scene, tell
from tests.synthetic.fine_scenes import AERIAL

SIDE, FRAMES, AROUND, BORDER = 192, 12, 24, 8
ROWS = ("bilinear", "as it ships", "mosaic to mosaic", "supervised at the right noise")


def scene(k):
    side = SIDE + 2 * AROUND
    if not AERIAL.is_dir():
        return (
            SimulatedMosaics(size=side, seed=k).draw(np.random.default_rng(k), 1).truth[0].numpy()
        )
    colours = read_colours(AERIAL / PHOTOGRAPHS[k])
    top, left = (
        int(v) for v in np.random.default_rng(k).integers(0, np.array(colours.shape[1:]) - side)
    )
    return np.ascontiguousarray(colours[:, top : top + side, left : left + side])


def psnr(frames, truth):
    error = (np.stack(frames) - truth)[..., BORDER:-BORDER, BORDER:-BORDER]
    mse = np.square(error, dtype=np.float64).mean((1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / mse)))


def restore(weights, burst):
    model = Model.from_restorer(load_jdd(weights, burst.pattern))
    return model.restore_sequence(burst.frames[:, None])


def motion_error(burst):
    """[px] root mean square over the frames that were registered, and how many those are."""
    flow = align_mosaics(burst.frames, reference=0)
    apart = flow.read(Window(0, 0, SIDE, SIDE)) - burst.flow
    kept = [t for t in flow.kept if t]
    return float(np.sqrt(np.square(apart[kept]).sum(1).mean())), len(kept)


def measure(k, sigma, pattern, weights, right, options):
    burst = simulate_mosaics(scene(k), (SIDE, SIDE), FRAMES, pattern=pattern, noise=sigma, seed=k)
    mosaics = torch.from_numpy(burst.frames)[:, None]
    results = {"bilinear": demosaick_bilinear(mosaics, pattern).numpy()}
    results["as it ships"] = restore(weights, burst)
    begin = time.perf_counter()
    adapted = restore_mosaics(burst.frames, pattern, weights=weights, peak=255.0, options=options)
    results["mosaic to mosaic"] = [frame for _, frame in adapted]
    seconds = time.perf_counter() - begin
    if right is not None:
        results["supervised at the right noise"] = restore(right, burst)
    error, kept = motion_error(burst)
    return {
        "scene": name_scene(k),
        "psnr": {name: psnr(frames, burst.truth) for name, frames in results.items()},
        "motion_error": error,
        "registered": kept,
        "seconds": seconds,
    }


def table(runs):
    """Markdown."""
    scenes = " | ".join(Path(run["scene"]).stem for run in runs)
    lines = [f"| PSNR [dB] | {scenes} | mean |", "|---|" + "---|" * (len(runs) + 1)]
    for row in ROWS:
        values = [run["psnr"][row] for run in runs if row in run["psnr"]]
        if values:
            told = " | ".join(f"{v:.2f}" for v in values)
            lines.append(f"| {row} | {told} | {statistics.mean(values):.2f} |")
    told = " | ".join(f"{run['motion_error']:.3f}" for run in runs)
    mean = statistics.mean(run["motion_error"] for run in runs)
    lines.append(f"| motion, error [px] | {told} | {mean:.3f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="start; those that ship by default")
    parser.add_argument("--right", type=Path, help="weights trained with truth at this noise")
    parser.add_argument("--sigma", type=float, default=10.0)
    parser.add_argument("--pattern", default="rggb")
    parser.add_argument("--scenes", type=int, default=4, help=f"{len(PHOTOGRAPHS)} at most")
    parser.add_argument("--iterations", type=int, default=MosaicOptions().iterations)
    parser.add_argument("--lr", type=float, default=MosaicOptions().lr)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start = options.weights or find_weights("jdd", None, None)
    tuning = MosaicOptions(iterations=options.iterations, lr=options.lr)
    runs = []
    for k in range(options.scenes):
        runs.append(measure(k, options.sigma, options.pattern, start, options.right, tuning))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    gains = [run["psnr"]["mosaic to mosaic"] - run["psnr"]["as it ships"] for run in runs]
    print(table(runs))
    results = {
        "start_sha256": hash_file(start),
        "sigma": options.sigma,
        "iterations": options.iterations,
        "lr": options.lr,
        "machine": {"cpus": os.cpu_count(), "threads": torch.get_num_threads()},
        "gain": statistics.mean(gains),
        "holds": statistics.mean(gains) >= 0.5,
        "runs": runs,
    }
    tell(results, options.json)


if __name__ == "__main__":
    main()
