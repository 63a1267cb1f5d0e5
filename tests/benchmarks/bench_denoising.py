"""Denoising a video that a network was not trained for: the published table in kind.

    python tests/benchmarks/bench_denoising.py --json out.json

The middle of a real clip (40 frames; a simulated one where it is not there) gets noise of a known
kind and seed: poisson8 is 8 * Poisson(x / 8), gauss20 and gauss40 are white, box is white noise of
40 averaged over 3 x 3 px (13.3 are left). Rows:

noisy; dncnn and fastdvdnet as trained on white noise, told that it is 25 (AWGN 25, the wrong level
for all); f2f, mf2f: the same networks that learn from the noisy video, online or offline, mf2f also
with a teacher. They too are told 25, whatever the noise; online they learn from whole frames,
offline from crops. supervised: on white noise the same
FastDVDnet told the right level; else weights that were trained further with truth at exactly that
noise (``--supervised poisson8=FILE``, ``box=FILE`` of fastdvdnet-box.yaml):

    l1bsr-geo train noise2noise tests/benchmarks/recipes/fastdvdnet-poisson8.yaml \\
        --data FOLDER_OF_PHOTOGRAPHS --start FASTDVDNET --out runs/fastdvdnet-poisson8

PSNR with a peak of 255 DN, not clipped, mean over the frames that every row has; SSIM with Gaussian
windows of 11 px, mean over colours and those frames. Seconds are those of learning and restoring;
the motion between frames is found once for all rows of a noise and told by itself.

With ``--resume`` rows that FILE of ``--json`` has are not computed again, so that a benchmark that
was stopped goes on. ``--set mf2f-online.lr=3e-5`` tries other numbers than those of the methods.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import rasterio
import torch

from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.models.checkpoint import find_weights
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.restoration.offline import OfflineOptions, restore_offline
from l1bsr_geo.restoration.online import F2F_ONLINE, MF2F_ONLINE, restore_online
from l1bsr_geo.simulation.noise import Box, Gaussian, Poisson
from l1bsr_geo.training.frame2frame import Frame2FrameObjective
from l1bsr_geo.training.mf2f import MF2FObjective
from l1bsr_geo.training.noise_levels import NoiseLevelTeacher
from l1bsr_geo.training.own_video import OwnVideo
from l1bsr_geo.training.videos import SimulatedVideos
from tests.benchmarks import image_figures
from tests.benchmarks.denoising_tables import print_goals, print_table

CLIP = Path(__file__).resolve().parents[3] / "shared/data/video_clip"
NOISES = {
    "poisson8": Poisson(8),
    "box": Box(40, 3),
    "gauss20": Gaussian(20),
    "gauss40": Gaussian(40),
}
TOLD = 25.0  # [DN] of white noise, what the networks are told
LEARNING = {
    "f2f-online": F2F_ONLINE,
    "f2f-offline": OfflineOptions(),
    "mf2f-online": MF2F_ONLINE,
    "mf2f-online-teacher": MF2F_ONLINE,
    "mf2f-offline": OfflineOptions(),
    "mf2f-offline-teacher": OfflineOptions(),
}
ROWS = ("noisy", "dncnn", "fastdvdnet", *LEARNING, "supervised")
SEED = 0


class Case:
    """A clip with noise.

    Attributes:
        clean: (T, C, H, W) [DN].
        noisy: the same with noise.
        motion_seconds: that the motion of all windows took, by reach.
    """

    def __init__(self, noise, clean, folder):
        self.noise, self.clean, self._folder = noise, clean, folder
        self.noisy = noise.add(clean, np.random.default_rng(SEED))
        self.motion_seconds = {}

    def source(self, objective, crop):
        """Windows to learn from, of whole frames where ``crop`` is None; their motion is found."""
        reach = objective.reach
        source = OwnVideo(
            ArrayVideo(self.noisy),
            reach=reach,
            targets=objective.targets,
            crop=crop,
            folder=self._folder / str(reach),
        )
        begin = time.perf_counter()
        for t in source.times:
            source.window(t)
        self.motion_seconds.setdefault(reach, round(time.perf_counter() - begin, 1))
        return source


def read_clip(frames, crop):
    """The middle of the clip, (T, 3, crop, crop) [DN]."""
    if not CLIP.is_dir():
        still = {"family": "gaussian", "sigma": 0.0}
        made = SimulatedVideos(count=1, size=crop, frames=frames | 1, varied=False, noise=still)
        return made.draw(np.random.default_rng(SEED), 1).views[0, :frames].numpy()
    clip = []
    for path in sorted(CLIP.glob("*.png"))[:frames]:
        with rasterio.open(path) as image:
            top, left = (image.height - crop) // 2, (image.width - crop) // 2
            clip.append(image.read([1, 2, 3])[:, top : top + crop, left : left + crop])
    return np.stack(clip).astype(np.float32)


def name_network(row):
    """The model whose weights a row begins with."""
    return "dncnn" if row.startswith(("dncnn", "f2f")) else "fastdvdnet"


def restore(row, case, file, options, folder, crop):
    """What a row makes of a case: [(C, H, W)], a frame each; and the seconds."""
    begin = time.perf_counter()
    if row == "noisy":
        return case.noisy, 0.0
    name = name_network(row)
    if row not in LEARNING:
        right = row == "supervised" and isinstance(case.noise, Gaussian)
        told = case.noise.sigma if right else TOLD
        frames = Model(name, file).restore_sequence(case.noisy, told)
        return frames, time.perf_counter() - begin
    network = find_entry(name).load(file).eval()
    objective = Frame2FrameObjective() if name == "dncnn" else MF2FObjective(sigma=TOLD / 255)
    teacher = NoiseLevelTeacher(network, sigma=TOLD / 255) if "teacher" in row else None
    online = "online" in row
    source = case.source(objective, None if online else crop)
    begin = time.perf_counter()  # motion is not counted
    run = restore_online if online else restore_offline
    frames = run(network, objective, source, folder, options, teacher=teacher)
    return [f for _, f in sorted(frames, key=lambda told: told[0])], time.perf_counter() - begin


def measure(row, case, file, options, crop):
    """Figures of a row, behind what it was measured with."""
    with tempfile.TemporaryDirectory() as folder:
        frames, seconds = restore(row, case, file, options, Path(folder) / "run", crop)
    unit, pairs = image_figures.PEAK / 255, list(zip(frames, case.clean, strict=True))
    errors = [np.square(frame - clean, dtype=np.float64).mean() for frame, clean in pairs]
    return {
        **describe(file, options),
        "seconds": round(seconds, 1),
        "psnr": [round(float(10 * np.log10(255**2 / error)), 3) for error in errors],
        "ssim": [round(float(image_figures.ssim(a * unit, b * unit).mean()), 4) for a, b in pairs],
    }


def describe(file, options):
    """What a row is measured with."""
    return {
        "weights_sha256": hash_file(file) if file else None,
        "learning": asdict(options) if options else None,
    }


def find_file(row, noise, options):
    """The weights of a row, None where it needs none, or "" where they are not given."""
    if row == "noisy":
        return None
    if row == "supervised" and not isinstance(NOISES[noise], Gaussian):
        return options.supervised.get(noise, "")
    name = name_network(row)
    return getattr(options, name) or find_weights(name, None, None)


def tune(texts):
    """The numbers of learning, some of them others: ``ROW.NAME=VALUE``, of rows that begin so."""
    learning = dict(LEARNING)
    for text in texts:
        place, value = text.split("=", 1)
        start, name = place.split(".", 1)
        for row in LEARNING:
            if row.startswith(start):
                learning[row] = replace(learning[row], **{name: json.loads(value)})
    return learning


def read_options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--fastdvdnet", type=Path, help="start; the one that ships by default")
    parser.add_argument("--dncnn", type=Path, help="start; the one that ships by default")
    parser.add_argument("--supervised", action="append", default=[], metavar="NOISE=FILE")
    parser.add_argument("--noise", nargs="+", default=list(NOISES), choices=NOISES)
    parser.add_argument("--methods", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--crop", type=int, default=256, help="[px] of the clip, its middle")
    parser.add_argument("--learn-crop", type=int, default=192, help="[px] of samples offline")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--set", action="append", default=[], metavar="ROW.NAME=VALUE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    options.supervised = {k: Path(v) for k, v in (t.split("=", 1) for t in options.supervised)}
    if options.resume and not options.json:
        parser.error("--resume goes on with the file of --json, which is not given")
    if not 16 <= options.learn_crop <= options.crop:
        parser.error(f"--learn-crop {options.learn_crop}: 16 to --crop, {options.crop}")
    return options


def begin(options):
    """Results without rows, or with those that are there already where resuming."""
    setup = {
        "clip": "video_clip" if CLIP.is_dir() else "simulated",
        "frames": options.frames,
        "crop": options.crop,
        "learn_crop": options.learn_crop,
        "told": TOLD,
        "seed": SEED,
    }
    machine = {"cpus": os.cpu_count(), "threads": torch.get_num_threads()}
    results = {"setup": setup, "machine": machine, "noises": {}}
    if options.resume and options.json.is_file():
        before = json.loads(options.json.read_text())
        if before["setup"] != setup:
            sys.exit(f"{options.json}: it was measured with another setup: {before['setup']}")
        results["noises"] = before["noises"]
    return results


def measure_noise(noise, clean, options, learning, told, folder):
    """Add the rows of a noise to those that are there, and give each time that one is done."""
    case = Case(NOISES[noise], clean, folder)
    for row in options.methods:
        file = find_file(row, noise, options)
        if file == "":
            print(f"{noise}, {row}: left out, its weights are not given", file=sys.stderr)
            continue
        there, numbers = told["rows"].get(row, {}), learning.get(row)
        if there.items() >= describe(file, numbers).items():
            continue
        told["rows"][row] = measure(row, case, file, numbers, options.learn_crop)
        told["motion_seconds"] |= {f"reach {k}": v for k, v in case.motion_seconds.items()}
        yield f"{noise}, {row}: {np.mean(told['rows'][row]['psnr']):.2f} dB"


def main():
    options = read_options()
    results, learning = begin(options), tune(options.set)
    clean = read_clip(options.frames, options.crop)
    for noise in options.noise:
        told = results["noises"].setdefault(noise, {"motion_seconds": {}, "rows": {}})
        with tempfile.TemporaryDirectory() as folder:
            for line in measure_noise(noise, clean, options, learning, told, Path(folder)):
                print(line, file=sys.stderr, flush=True)
                if options.json:
                    options.json.write_text(json.dumps(results) + "\n")
    print_table(results["noises"], ROWS)
    print_goals(results["noises"])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
