"""Splatting the features of a burst: indices once per flow, against once per channel.

    python tests/benchmarks/bench_splat.py --json out.json

The baseline is how it is written where every channel is an image of its own: samples and flows are
repeated for every channel, and four corners are scattered for the samples and four for the weights,
eight passes. A lighter baseline adds up the weights only once. All get the same tensors and run in
turns; the medians of elapsed time and of the time of all cores are told, without gradients and with
(samples and flow).
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
    """The baseline: channels are images, each with a flow of its own; eight passes."""
    flows = motion[:, None].repeat(1, samples.shape[1], 1, 1, 1).flatten(0, 1)
    corners = list(find_corners(flows, scale))
    added = scatter(corners, samples.flatten(0, 1).flatten(1), samples, scale)
    weight = scatter(corners, 1, samples, scale)
    return added, weight[:, :1]


def splat_per_channel_weights_once(samples, motion, scale):
    """The baseline made lighter: the weights are added up for one channel only."""
    flows = motion[:, None].repeat(1, samples.shape[1], 1, 1, 1).flatten(0, 1)
    corners = find_corners(flows, scale)
    added = scatter(corners, samples.flatten(0, 1).flatten(1), samples, scale)
    return added, scatter(find_corners(motion, scale), 1, samples[:, :1], scale)


def find_corners(flows, scale):
    """Index and share, (N, H * W) each, of the four corners in turn."""
    height, width = flows.shape[-2:]
    rows = torch.arange(height, dtype=flows.dtype, device=flows.device)[:, None]
    columns = torch.arange(width, dtype=flows.dtype, device=flows.device)
    x = (scale * (columns + flows[:, 0])).clamp(0, scale * width - 1).flatten(1)
    y = (scale * (rows + flows[:, 1])).clamp(0, scale * height - 1).flatten(1)
    left, top, right, bottom = (v.detach() for v in (x.floor(), y.floor(), x.ceil(), y.ceil()))
    past_x, past_y = x - left, y - top
    for row, down in ((top, 1 - past_y), (bottom, past_y)):
        for column, across in ((left, 1 - past_x), (right, past_x)):
            yield (row * scale * width + column).long(), down * across


def scatter(corners, values, like, scale):
    """The four corners' values, added up into images (B, C, scale * H, scale * W)."""
    batch, channels, height, width = like.shape
    fine = like.new_zeros(batch * channels, scale**2 * height * width)
    for index, share in corners:
        fine = fine.scatter_add(1, index, values * share)
    return fine.view(batch, channels, scale * height, scale * width)


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

    functions = {
        "once_per_flow": splat,
        "per_channel": splat_per_channel,
        "per_channel_weights_once": splat_per_channel_weights_once,
    }
    ours, *theirs = (run(function) for function in functions.values())
    for other in theirs:
        torch.testing.assert_close(other, ours, atol=1e-4, rtol=1e-4)
    runs = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            runs[name].append(seconds(lambda function=function: run(function)))
    medians = {
        name: [statistics.median(column) for column in zip(*values, strict=True)]
        for name, values in runs.items()
    }
    faster = {
        name: [b / a for a, b in zip(medians["once_per_flow"], times, strict=True)]
        for name, times in medians.items()
    }
    return {"runs": runs, "medians": medians, "times_faster_than": faster}


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
