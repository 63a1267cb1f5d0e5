"""What fine-tuning on the scene itself changes, against the truth of simulated bursts.

    python tests/benchmarks/bench_finetune.py --minutes 1 --json out.json     on 2 cores: 25 minutes

Every scene gives bursts that match what the network was trained for (noise 2.5), and bursts that do
not: behind another blur (a Gaussian of 0.4 px in all frames, which the truth has too), with noise
0.7 and with noise 4. Scenes are photographs that were not trained on, or made-up cities where they
are not there. The command's own function reads the frames from disk, registers them, and fine-tunes;
then both weights restore all frames with their true motion. PSNR: peak 3400 DN, 16 fine pixels of
border left out. A matching network may lose 0.02 dB at most, a mismatched one must gain.

``--model l1bsr`` does the same for overlaps of two detectors: with the noise and the MTF of the
instrument, with five times its noise, and with bands blurred by another 0.4 px.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image
from scipy import ndimage

from l1bsr_geo.models.checkpoint import find_weights
from l1bsr_geo.models.registry import Model
from l1bsr_geo.pipelines.finetune import finetune
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city, scene_from_photograph
from tests.synthetic.fine_scenes import AERIAL

PHOTOGRAPHS = (
    "brighton/DJI_0024.jpg",
    "seneca/IMG_0578.jpg",
    "brighton/DJI_0025.jpg",
    "seneca/IMG_0600.jpg",
    "seneca/IMG_0589.jpg",
    "seneca/IMG_0611.jpg",
)
CASES = {
    "matching": {"noise": 2.5, "blur": 0.0},
    "another blur (0.4 px more)": {"noise": 2.5, "blur": 0.4},
    "noise 0.7": {"noise": 0.7, "blur": 0.0},
    "noise 4": {"noise": 4.0, "blur": 0.0},
}
FRAMES, SIDE = 15, 160


def read_scene(k, side):
    """Fine scene [DN] and its name."""
    path = AERIAL / PHOTOGRAPHS[k]
    if not path.is_file():
        return made_city((side, side), 300 + k), f"made city {k}"
    with Image.open(path) as image:
        fine = scene_from_photograph(np.asarray(image.convert("RGB"), np.float32).mean(2))
    top, left = (n // 2 - side // 2 for n in fine.shape)
    return fine[top : top + side, left : left + side], PHOTOGRAPHS[k]


def make_burst(scene, noise, blur, seed):
    fine = ndimage.gaussian_filter(scene, 2 * blur) if blur else scene
    return simulate_burst(fine, (SIDE, SIDE), FRAMES, noise=noise, seed=seed)


def psnr(image, truth, border=16):
    inside = slice(border, -border)
    return -10 * float(np.log10(np.mean(((image - truth)[inside, inside] / 3400.0) ** 2)))


def restore(weights, model, burst):
    views, flow = burst.frames[None, :, None], burst.flow[None, :, None]
    return Model(model, weights=weights, device="cpu").restore(views, flow)[0, 0]


def run_burst(k, case, start, model, minutes):
    scene, name = read_scene(k, 2 * (SIDE + 40))
    burst = make_burst(scene, **CASES[case], seed=k)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.save(Path(folder) / "burst.npy", burst.counts)
        begin = time.perf_counter()
        done = finetune(
            Path(folder) / "burst.npy",
            Path(folder) / "adapted.safetensors",
            weights=start,
            minutes=minutes,
            device="cpu",
        )
        seconds = time.perf_counter() - begin
        before, after = (psnr(restore(w, model, burst), burst.truth) for w in (start, done.weights))
    adaptation = done.adaptation
    return {
        "scene": name,
        "before": before,
        "after": after,
        "change": after - before,
        "kept": adaptation.kept,
        "loss_gain": adaptation.gain.mean,
        "loss_gain_error": adaptation.gain.error,
        "iteration": adaptation.iteration,
        "iterations": adaptation.iterations,
        "ended": adaptation.ended,
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start = options.weights or find_weights("dsa", None, None)
    for case in options.cases:
        for k in range(options.scenes):
            r = run_burst(k, case, start, "dsa", options.minutes)
            print(case, r, flush=True)


if __name__ == "__main__":
    main()
