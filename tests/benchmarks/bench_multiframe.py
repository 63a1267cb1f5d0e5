"""Multi-frame restorers on a fixed set of simulated bursts: PSNR, time, memory.

    python tests/benchmarks/bench_multiframe.py --json out.json        under 5 minutes on 2 cores

PSNR: eight scenes (four of each aerial series beside the checkout, made-up ground without them),
96 x 96 px and 30 frames each with motion up to 1 px and 2.5 times the noise of SkySat's model (the
setting that reproduces published figures), against the scene behind optics and pixel on the
centre-aligned x2 grid; peak 3400 DN, 8 fine pixels of border left out, mean over scenes. ACT runs
as it comes (noise 24 DN) and told the set's noise (32 DN in the middle of the range). Motion is
the true one, so that the figures are those of the fusion.

Time: of an output megapixel (512 x 512 px in), median of runs in turns, elapsed and of all cores.
Memory: peak resident memory of a process of its own, beyond what it had after restoring a small
burst; the burst itself is in it. The networks have random weights and restore 128 x 128 px: their
times are scaled to a megapixel.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from l1bsr_geo.models.act import ACT
from l1bsr_geo.models.classical import Bicubic
from l1bsr_geo.models.dsa import DSA
from l1bsr_geo.models.hdr_dsp import HDRDSP
from l1bsr_geo.models.shift_and_add import ShiftAndAdd
from l1bsr_geo.simulation.bursts import simulate_burst
from tests.synthetic.fine_scenes import AERIAL, fine_scenes

FRAMES = (5, 16, 30)
CLASSICAL = {
    "bicubic": lambda: Bicubic(aligned="centre"),
    "shift-and-add": ShiftAndAdd,
    "act": ACT,
    "act, told the noise": lambda: ACT(noise=32.0),
}
NETWORKS = {"dsa": DSA, "hdr-dsp": HDRDSP}
SIDES = dict.fromkeys(CLASSICAL, 512) | dict.fromkeys(NETWORKS, 128)


def psnr(image, truth, border=8):
    inner = slice(border, -border)
    return -10 * float(np.log10(np.mean(((image - truth)[inner, inner] / 3400) ** 2)))


def measure_quality():
    """Per scene, method and number of frames [dB]; frames are the first of a burst of 30."""
    size = 2 * 96 + 80
    scenes = [s for place in ("brighton", "seneca") for s in fine_scenes(4, size, place, skip=1)]
    figures = {name: {t: [] for t in FRAMES} for name in CLASSICAL}
    for seed, scene in enumerate(scenes):
        burst = simulate_burst(scene, (96, 96), max(FRAMES), seed=seed)
        for name, make in CLASSICAL.items():
            for t in FRAMES:
                views, flow = (
                    torch.from_numpy(v[:t])[None, :, None]
                    for v in (
                        burst.frames,
                        burst.flow,
                    )
                )
                fine = make()(views, flow)[0, 0].numpy()
                figures[name][t].append(psnr(fine, burst.truth))
    return figures


def made_burst(frames, side):
    generator = torch.Generator().manual_seed(0)
    views = 500 + 1000 * torch.rand(1, frames, 1, side, side, generator=generator)
    shifts = 2 * torch.rand(1, frames, 1, 2, 1, 1, generator=generator) - 1
    shifts[:, 0] = 0
    return views, shifts.expand(-1, -1, -1, -1, side, side).clone()


def build(name):
    if name in CLASSICAL:
        return CLASSICAL[name]()
    torch.manual_seed(0)
    network = NETWORKS[name]().eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def run(restorer, burst):
    with torch.inference_mode():
        restorer(*burst)


def seconds(function):
    """Elapsed, and of all cores together: the latter hardly sees a machine's other load."""
    start, cpu_start = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - cpu_start


def measure_time(repeats):
    """Medians of [elapsed, all cores] seconds per output megapixel, and the runs."""
    cases = [(name, t) for name in ("bicubic", "shift-and-add", "act") for t in FRAMES]
    cases += [(name, t) for name in NETWORKS for t in FRAMES]
    runs = {case: [] for case in cases}
    restorers = {name: build(name) for name, _ in cases}
    for turn in range(repeats):
        for name, t in cases:
            if name in NETWORKS and turn:
                continue  # long enough to be told from one run
            burst = made_burst(t, SIDES[name])
            scale = 1e6 / (2 * SIDES[name]) ** 2
            elapsed = seconds(lambda name=name, burst=burst: run(restorers[name], burst))
            runs[name, t].append([scale * s for s in elapsed])
    medians = {
        case: [statistics.median(column) for column in zip(*values, strict=True)]
        for case, values in runs.items()
    }
    return {
        "columns": ["elapsed [s]", "of all cores [s]"],
        "medians": nest(medians),
        "runs": nest(runs),
    }


def peak():
    """Most resident memory of this process so far [bytes].

    Not ru_maxrss where it can be helped: on Linux a child starts with its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (v for v in status.read_text().splitlines() if v.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_memory_here(name, frames):
    """In a fresh process: prints the peak beyond that of a small burst's run [bytes]."""
    restorer = build(name)
    run(restorer, made_burst(2, 32))
    before = peak()
    run(restorer, made_burst(frames, SIDES[name]))
    print(peak() - before)


def measure_memory():
    found = {}
    for name in ("bicubic", "shift-and-add", "act", *NETWORKS):
        for t in FRAMES:
            command = [sys.executable, __file__, "--child", name, str(t)]
            found[name, t] = int(subprocess.check_output(command, text=True))
    growth = {name: found[name, 30] / found[name, 5] for name, _ in found}
    inputs = {
        t: {side: t * side**2 * 3 * 4 for side in sorted(set(SIDES.values()))} for t in FRAMES
    }
    return {"bytes": nest(found), "input_bytes": inputs, "of_30_frames_over_5": growth}


def nest(figures):
    nested = {}
    for (name, t), value in figures.items():
        nested.setdefault(name, {})[t] = value
    return nested


def table(results):
    """The figures as Markdown."""
    lines = [
        "| method | PSNR T = 5 | 16 | 30 [dB] | s per output Mpx, T = 5 | 16 | 30 "
        "| peak memory T = 5 | 30 [MB] |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    quality, timing, memory = (results.get(k, {}) for k in ("psnr", "time", "memory"))
    for name in (*CLASSICAL, *NETWORKS):
        decibels = quality.get("mean", {}).get(name, {})
        cells = [f"{decibels[t]:.2f}" if decibels else "" for t in FRAMES]
        medians = timing.get("medians", {}).get(name, {})
        cells += [f"{medians[t][0]:.2f}" if medians else "" for t in FRAMES]
        used = memory.get("bytes", {}).get(name, {})
        cells += [f"{used[t] / 1e6:.0f}" if used else "" for t in (5, 30)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip", choices=["psnr", "time", "memory"], action="append", default=[])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure_memory_here(options.child[0], int(options.child[1]))
        return
    results = {
        "machine": {"cpus": os.cpu_count(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "scenes": "aerial" if AERIAL.is_dir() else "made",
    }
    if "psnr" not in options.skip:
        figures = measure_quality()
        mean = {n: {t: statistics.mean(v) for t, v in f.items()} for n, f in figures.items()}
        results["psnr"] = {"mean": mean, "scenes": figures}
    if "time" not in options.skip:
        results["time"] = measure_time(options.repeats)
    if "memory" not in options.skip:
        results["memory"] = measure_memory()
    print(table(results))
    text = json.dumps(results, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
