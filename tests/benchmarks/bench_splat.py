"""Splatting the features of a burst: indices once per flow, against once per channel.

    python tests/benchmarks/bench_splat.py --json out.json

The baseline is how it is written where every channel is an image of its own: samples and flows are
repeated for every channel, and four corners are scattered for the samples and four for the weights,
eight passes. Both get the same tensors and run in turns; the medians of elapsed time and of the
time of all cores are told, without gradients and with (samples and flow).
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from l1bsr_geo.ops.splat import splat


def splat_per_channel(samples, motion, scale):
    """The baseline: (B, C, H, W) and (B, 2, H, W) as B * C images with a flow each."""
    batch, channels, height, width = samples.shape
    fine = (scale * height, scale * width)
    flows = motion[:, None].repeat(1, channels, 1, 1, 1).flatten(0, 1)
    values = samples.reshape(batch * channels, -1)
    rows = torch.arange(height, dtype=motion.dtype, device=motion.device)[:, None]
    columns = torch.arange(width, dtype=motion.dtype, device=motion.device)
    x = (scale * (columns + flows[:, 0])).clamp(0, fine[1] - 1).flatten(1)
    y = (scale * (rows + flows[:, 1])).clamp(0, fine[0] - 1).flatten(1)
    added, weight = (values.new_zeros(batch * channels, fine[0] * fine[1]) for _ in range(2))
    corners = [
        (row, column, (1 - (y - row).abs()) * (1 - (x - column).abs()))
        for row, column in (
            (y.floor(), x.floor()),
            (y.floor(), x.ceil()),
            (y.ceil(), x.floor()),
            (y.ceil(), x.ceil()),
        )
    ]
    # where floor and ceil are one, the second corner gets nothing
    exact_x, exact_y = x == x.floor(), y == y.floor()
    shares = [
        share * ~(exact_x & bool(i & 1)) * ~(exact_y & bool(i & 2))
        for i, (_, _, share) in enumerate(corners)
    ]
    indices = [(row.detach() * fine[1] + column.detach()).long() for row, column, _ in corners]
    for index, share in zip(indices, shares, strict=True):
        added = added.scatter_add(1, index, values * share)
    for index, share in zip(indices, shares, strict=True):
        weight = weight.scatter_add(1, index, share)
    return added.view(batch, channels, *fine), weight.view(batch, channels, *fine)[:, :1]


def seconds(function):
    """Elapsed, and of all cores together: the latter hardly sees a machine's other load."""
    synchronise()
    start, cpu_start = time.perf_counter(), time.process_time()
    function()
    synchronise()
    return time.perf_counter() - start, time.process_time() - cpu_start


def synchronise():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(samples, motion, scale, repeats, gradients):
    samples, motion = (v.clone().requires_grad_(gradients) for v in (samples, motion))

    def run(splatting):
        added, weight = splatting(samples, motion, scale)
        if gradients:
            torch.autograd.grad(added.square().sum() + weight.square().sum(), (samples, motion))
        return added, weight

    for ours, theirs in zip(run(splat), run(splat_per_channel), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    functions = {"once_per_flow": splat, "per_channel": splat_per_channel}
    runs = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            runs[name].append(seconds(lambda function=function: run(function)))
    medians = {
        name: [statistics.median(column) for column in zip(*values, strict=True)]
        for name, values in runs.items()
    }
    ratio = [b / a for a, b in zip(*medians.values(), strict=True)]
    return {"runs": runs, "medians": medians, "times_faster": ratio}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--shape", type=int, nargs=2, default=(128, 128), metavar=("H", "W"))
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    shape = (options.frames, options.channels, *options.shape)
    samples = torch.randn(shape, generator=generator).to(options.device)
    # a translation for each frame, and a little of everything else
    motion = 2 * torch.rand(options.frames, 2, 1, 1, generator=generator) - 1
    motion = motion + 0.02 * torch.randn(options.frames, 2, *options.shape, generator=generator)
    motion = motion.to(options.device)
    results = {
        "machine": {"cpus": os.cpu_count(), "torch": torch.__version__, "device": options.device},
        "threads": torch.get_num_threads(),
        "shape": shape,
        "scale": options.scale,
        "columns": ["elapsed [s]", "of all cores [s]"],
        "forward": measure(samples, motion, options.scale, options.repeats, False),
        "forward_and_gradients": measure(samples, motion, options.scale, options.repeats, True),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
