"""Multi-frame restorers: time and memory. How good they are: bench_multi_image.py.

    python tests/benchmarks/bench_multiframe.py --json out.json        under 5 minutes on 2 cores

Time: of an output megapixel (512 x 512 px in), median of runs in turns, elapsed and of all cores.
Memory: peak resident memory of a process of its own, beyond what it had after restoring a small
burst; the burst itself is in it. The networks are the published size, with random weights, and
restore 128 x 128 px: their times are scaled to a megapixel.
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

import torch

from l1bsr_geo.models.act import ACT
from l1bsr_geo.models.classical import Bicubic
from l1bsr_geo.models.dsa import DSA
from l1bsr_geo.models.hdr_dsp import HDRDSP
from l1bsr_geo.models.shift_and_add import ShiftAndAdd

FRAMES = (5, 16, 30)
CLASSICAL = {
    "bicubic": lambda: Bicubic(aligned="centre"),
    "shift-and-add": ShiftAndAdd,
    "act": ACT,
}
NETWORKS = {"dsa": DSA, "hdr-dsp": HDRDSP}
SIDES = dict.fromkeys(CLASSICAL, 512) | dict.fromkeys(NETWORKS, 128)


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
    cases = [(name, t) for name in (*CLASSICAL, *NETWORKS) for t in FRAMES]
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
    for name in (*CLASSICAL, *NETWORKS):
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
        "| method | s per output Mpx, T = 5 | 16 | 30 | peak memory T = 5 | 30 [MB] |",
        "|---|---|---|---|---|---|",
    ]
    timing, memory = (results.get(k, {}) for k in ("time", "memory"))
    for name in (*CLASSICAL, *NETWORKS):
        medians = timing.get("medians", {}).get(name, {})
        cells = [f"{medians[t][0]:.2f}" if medians else "" for t in FRAMES]
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
    parser.add_argument("--skip", choices=["time", "memory"], action="append", default=[])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure_memory_here(options.child[0], int(options.child[1]))
        return
    results = {
        "machine": {"cpus": os.cpu_count(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }
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
