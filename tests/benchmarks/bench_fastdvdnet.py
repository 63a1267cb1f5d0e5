"""FastDVDnet on a sequence: what reusing the first stage's results saves, for the same pixels.

    python tests/benchmarks/bench_fastdvdnet.py --json out.json
    ... --frames 40 --rows 540 --columns 960 --device cuda          a video of its usual size

A sequence of N frames costs 2 N + 2 U-Nets, its windows one by one 4 N: 1.95 times as much for 40
frames. Frames smaller than 131 000 px go several at a time besides, which adds a little. Both ways
take turns, so that what else runs on the machine meets both, and the quickest run of each counts;
where the processor is shared, its own seconds say more than the clock. The weights are random: no
time depends on them.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from l1bsr_geo.models.fastdvdnet import FastDVDnet, mirror
from l1bsr_geo.models.registry import Model

GOAL = 1.8


def restore_windows(model: Model, video: np.ndarray) -> np.ndarray:
    """Every frame by the five around it, one window after the other."""
    restored = []
    for t in range(len(video)):
        window = [mirror(t + k, len(video)) for k in range(-2, 3)]
        restored.append(model.restore(video[window][None])[0])
    return np.stack(restored)


def timed(restore, *arguments):
    """What a function gives, and its seconds: on the clock, and of the processor."""
    wall, used = time.perf_counter(), time.process_time()
    result = restore(*arguments)
    return result, (time.perf_counter() - wall, time.process_time() - used)


def measure(shape: tuple[int, int, int], width: int, device: str, turns: int) -> dict:
    torch.manual_seed(0)
    model = Model.from_restorer(FastDVDnet(width=width).eval(), device=device)
    frames, rows, columns = shape
    rng = np.random.default_rng(0)
    video = rng.uniform(0, 255, (frames, 3, rows, columns)).astype(np.float32)
    model.restore_sequence(video[:3])  # loads, and tunes a GPU
    reused, alone, apart = [], [], 0.0
    for _ in range(turns):
        whole, cost = timed(model.restore_sequence, video)
        reused.append(cost)
        windows, cost = timed(restore_windows, model, video)
        alone.append(cost)
        apart = max(apart, float(np.abs(whole - windows).max()))
    (wall, used), (wall_alone, used_alone) = np.min(reused, 0), np.min(alone, 0)
    return {
        "frames": frames,
        "rows": rows,
        "columns": columns,
        "width": width,
        "device": str(model.torch_device),
        "threads": torch.get_num_threads(),
        "seconds a frame, sequence": float(wall / frames),
        "seconds a frame, windows": float(wall_alone / frames),
        "ratio": float(wall_alone / wall),
        "ratio of processor seconds": float(used_alone / used),
        "goal": GOAL,
        "largest difference [DN]": apart,
        "deviation of the result [DN]": float(whole.std()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--columns", type=int, default=160)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shape = (given.frames, given.rows, given.columns)
    figures = measure(shape, given.width, given.device, given.turns)
    for name, value in figures.items():
        print(f"{name:32s} {value:.4g}" if isinstance(value, float) else f"{name:32s} {value}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
