"""Registration of bursts: how well frames of known motion are found, and whether bad ones slip by.

    python tests/benchmarks/bench_frames.py --json out.json      about 3 minutes
    ... --scenes made                                            without the images of ../shared

Accuracy: root mean square end-point error of each frame [px of the input], over the part of the
reference that it sees; its median, 95th percentile and largest over all frames. Bursts of simulated
SkySat frames at the measured noise (1) and at 2.5 times that; whole-pixel motion up to a tenth of
the frame besides.

Bad frames: pairs of a reference and one frame that is no good, so that neither the burst nor its
geometry can help; a bad frame is wrong silently if it comes back as kept and is off by 0.2 px. Good
frames that are rejected are counted too.

Cost: frames of 2560 x 1080 pixels, CPU seconds a frame, and memory beyond the frames themselves.
"""

import argparse
import json
import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import rasterio
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.registration.frames import align_frames
from l1bsr_geo.simulation.bursts import noise_sigma, simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city, scene_from_photograph

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
MOTIONS = {
    "translation": {},
    "affine and jitter": {"affine": 2e-4, "jitter": 0.02, "defocus": 0.15},
    "exposures": {"affine": 2e-4, "exposures": (0.25, 0.5, 1.0)},
    "relief 0.1 px": {"affine": 2e-4, "parallax": 0.1},
}


@dataclass(frozen=True, eq=False)
class Pixels:
    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, window):
        return self.values[window.slices]


def burst_of(frames, exposures=None):
    count = len(frames)
    exposures = np.ones(count) if exposures is None else exposures
    return Burst(
        tuple(map(Pixels, frames)),
        (GeoGrid(frames[0].shape),) * count,
        tuple(float(e) for e in exposures),
    )


def end_point_errors(flow, truth):
    """Of every kept frame but the reference, by index."""
    height, width = truth.shape[2:]
    found = flow.read(Window(0, 0, width, height))
    y, x = np.mgrid[:height, :width] + 0.5
    out = {}
    for t in flow.kept[1:]:
        at_x, at_y = x + truth[t, 0], y + truth[t, 1]
        seen = (at_x > 0) & (at_x < width) & (at_y > 0) & (at_y < height)
        out[t] = float(np.sqrt(np.square(found[t] - truth[t]).sum(0)[seen].mean()))
    return out


def load_scenes(which):
    scenes = {"made city": made_city((1000, 1000), 0)}
    if which == "all" and SHARED.is_dir():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        photograph = sorted((SHARED / "aerial" / "seneca").glob("*.jpg"))[0]
        with rasterio.open(photograph) as raster:
            grey = raster.read(window=((0, 2000), (0, 2000))).mean(0)
        scenes["fields, aerial"] = scene_from_photograph(grey)
        for name, path in (
            ("town, satellite", SHARED / "spacenet_pan" / "sample_geotiff.tif"),
            ("town, Pleiades", SHARED / "pleiades_marseille_triplet" / "img_01.tif"),
        ):
            with rasterio.open(path) as raster:
                values = raster.read(1).astype(np.float32)
            low, high = np.percentile(values, [0.5, 99.5])
            scenes[name] = FULL_SCALE * (0.08 + 0.65 * np.clip((values - low) / (high - low), 0, 1))
    return scenes


def cut(scene, size, rng):
    y, x = (int(rng.integers(0, n - size + 1)) for n in scene.shape)
    return scene[y : y + size, x : x + size]


def measure_accuracy(scenes, sizes=(64, 128, 256), seeds=4):
    table = []
    for motion, options in MOTIONS.items():
        for size in sizes:
            for noise in (1.0, 2.5):
                errors, lost = [], 0
                for name, scene in scenes.items():
                    for seed in range(seeds):
                        rng = np.random.default_rng([seed, size])
                        reach = size // 10
                        offsets = np.vstack([[0, 0], rng.integers(-reach, reach + 1, (7, 2))])
                        made = simulate_burst(
                            cut(scene, 2 * size + 4 * reach + 90, rng), (size, size), 8,
                            noise=noise, offsets=offsets, seed=seed, **options,
                        )  # fmt: skip
                        try:
                            flow = align_frames(burst_of(made.counts, made.exposures))
                        except BadInputError as error:
                            print(f"   {name}, {motion}, {size} px, noise {noise}: {error}")
                            lost += 7
                            continue
                        found = end_point_errors(flow, made.flow)
                        errors += found.values()
                        lost += 7 - len(found)
                row = {
                    "motion": motion, "size": size, "noise": noise, "frames": len(errors),
                    "median": np.median(errors), "p95": np.percentile(errors, 95),
                    "largest": max(errors), "rejected": lost,
                }  # fmt: skip
                table.append(row)
                print(
                    f"{motion:18s} {size:4d} px  noise {noise:3.1f}  median {row['median']:.4f}  "
                    f"p95 {row['p95']:.4f}  largest {row['largest']:.4f} px  "
                    f"rejected {lost} of {len(errors) + lost}",
                    flush=True,
                )
    return table


def spoil(kind, frame, other, noise, rng):
    """A frame that is no good (or, once, one that is)."""
    if kind == "another place":
        return other
    if kind == "flat":
        return 1000 + noise_sigma(np.float32(1000), noise) * rng.standard_normal(frame.shape)
    if kind == "mirrored":
        return frame[:, ::-1]
    if kind == "very blurred":
        soft = ndimage.gaussian_filter(frame, 3.0)
        return soft + noise_sigma(soft, noise) * rng.standard_normal(frame.shape)
    if kind == "saturated":
        return np.minimum(6 * frame, FULL_SCALE)
    return frame


def measure_bad_frames(scenes, trials=25, size=96):
    table = []
    for kind in ("another place", "flat", "mirrored", "very blurred", "saturated", "good"):
        silent, kept, total = 0, 0, 0
        for noise in (1.0, 2.5):
            for k, scene in enumerate(scenes.values()):
                elsewhere = list(scenes.values())[k - 1]
                for trial in range(trials):
                    rng = np.random.default_rng([trial, k])
                    made = simulate_burst(
                        cut(scene, 2 * size + 90, rng), (size, size), 2, noise=noise, seed=trial
                    )
                    other = simulate_burst(
                        cut(elsewhere, 2 * size + 90, rng), (size, size), 1, noise=noise, seed=trial
                    ).frames[0]
                    bad = spoil(kind, made.frames[1], other, noise, rng)
                    frames = [made.counts[0], np.clip(np.rint(bad), 0, 65535).astype(np.uint16)]
                    total += 1
                    try:
                        flow = align_frames(burst_of(frames))
                    except BadInputError:
                        continue
                    kept += 1
                    silent += end_point_errors(flow, made.flow)[1] > 0.2
        table.append({"kind": kind, "pairs": total, "kept": kept, "silently wrong": silent})
        print(f"{kind:14s} {total} pairs, kept {kept}, silently wrong {silent}", flush=True)
    return table


def measure_cost(frames=3):
    shape = (1080, 2560)
    offsets = [(0, 57 * t) for t in range(frames)]
    scene = made_city((2 * 1080 + 2 * 57 * frames + 120, 2 * 2560 + 120), 0)
    made = simulate_burst(scene, shape, frames, offsets=offsets, affine=1e-4, seed=1)
    burst = burst_of(made.counts)
    truth = made.flow
    del scene, made
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    flow = align_frames(burst)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    row = {
        "CPU seconds a frame": cpu / (frames - 1),
        "seconds a frame": wall / (frames - 1),
        "MiB more than the simulation took": (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        )
        / 1024,
        "largest error": max(end_point_errors(flow, truth).values()),
    }
    print("2560 x 1080:", ", ".join(f"{k} {v:.3f}" for k, v in row.items()), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scenes", choices=("all", "made"), default="all")
    arguments = parser.parse_args()
    scenes = load_scenes(arguments.scenes)
    figures = {
        "cost": measure_cost(),
        "scenes": list(scenes),
        "accuracy": measure_accuracy(scenes),
        "bad frames": measure_bad_frames(scenes),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
