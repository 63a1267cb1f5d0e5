"""What half the bits cost and save, and what else was tried: a table in Markdown.

    python tests/benchmarks/bench_precision.py --json out.json      all networks, 3 minutes
    ... --side 512 --repeats 5 --threads 2                          at the size of a tile
    ... --only l1bsr-rcan --side 384                                REC alone, 15.4 M parameters
    ... --only dsa --compile                                        and torch.compile

Every network that ships restores made-up views in both precisions, in turns, in one process; REC,
of which no weights ship, has the random ones of the conformance vectors' rule. "plain" is the
module as torch runs it by itself: fp32, the default memory format, the whole image at once. Seconds
are CPU seconds, the least of several turns, on one thread unless asked otherwise: several wait for
each other by counting seconds, and other load on the machine would be measured. The PSNR between
both precisions' results has a peak of 4095 DN (12 bits). "auto" is what `settle_precision` says.
"""

import argparse
import copy
import json
import os
import sys
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.pixels import Views
from l1bsr_geo.models.checkpoint import find_weights
from l1bsr_geo.models.precision import computing, multiplies_bf16
from l1bsr_geo.models.rcan import REC
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.models.shipped import made_views
from l1bsr_geo.tiling.precision import compare_results, settle_precision

NETWORKS = {
    "l1bsr": ("l1bsr", None),
    "dsa": ("dsa", None),
    "dsa-x3": ("dsa", 3),
    "hdr-dsp": ("hdr-dsp", None),
    "l1bsr-rcan": ("l1bsr-rcan", None),
}
CPU = torch.device("cpu")


class MadeScene:
    """Views in memory, as a scene."""

    def __init__(self, views, flow, spec):
        self._views, self._flow = views[0], flow[0]
        self.grid = GeoGrid(views.shape[-2:])
        self.bands = spec.bands or ("B1",)
        self.dtype, self.nodata = np.dtype("uint16"), None
        self.add_offset = (0.0,) * len(self.bands)

    def read(self, window):
        at = (..., *window.slices)
        pixels, flow = (np.ascontiguousarray(v[at]) for v in (self._views, self._flow))
        return Views(pixels, np.ones(pixels.shape, bool), flow, np.ones(len(pixels), np.float32))


def random_rec():
    """REC as published, with weights that anyone can make again (gain 0.35)."""
    rec = REC()
    state = {}
    for name, value in rec.state_dict().items():
        made = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(value.shape)
        many = value.ndim > 1
        made = made * 0.35 / np.sqrt(value[0].numel()) if many else 0.05 * made
        state[name] = torch.from_numpy(made.astype(np.float32))
    rec.load_state_dict(state)
    return rec


def load(name):
    """The model at precision auto, and its module as torch has it."""
    model_name, scale = NETWORKS[name]
    if name == "l1bsr-rcan":
        network = random_rec()
        return Model.from_restorer(network, "cpu"), network
    model = Model(model_name, scale=scale, device="cpu")
    entry = MODELS[model_name]
    file = find_weights(model_name, None, entry.weights, entry.unusual(scale))
    return model, entry.load(file, scale)


def measure(name, side, repeats):
    model, network = load(name)
    spec = model.spec
    views, flow = made_views(spec, side)
    auto = settle_precision(model, MadeScene(views, flow, spec)).precision
    network = copy.deepcopy(network).eval().requires_grad_(False)
    given = [torch.from_numpy(views) / spec.gain, torch.from_numpy(flow) if spec.flow else None]
    # as in the tiles of a scene
    statistics = model.scene_statistics([views]) if spec.scene_statistics else None

    def plain():
        with torch.inference_mode():
            return (network(*given) * spec.gain).numpy()

    def restore(precision):
        half = model.at_precision(precision)
        return lambda: half.restore(views, flow if spec.flow else None, statistics)

    runs = {"plain": plain, "fp32": restore("fp32"), "bf16": restore("bf16")}
    figures, results = alternate(runs, repeats)
    rms, decibels = compare_results(results["fp32"], results["bf16"], np.dtype("uint16"))
    return {
        "network": name,
        "views": list(views.shape),
        "seconds": figures,
        "plain_over_fp32": figures["plain"]["cpu"] / figures["fp32"]["cpu"],
        "fp32_over_bf16": figures["fp32"]["cpu"] / figures["bf16"]["cpu"],
        "plain_over_bf16": figures["plain"]["cpu"] / figures["bf16"]["cpu"],
        "rms_dn": rms,
        "psnr_db": decibels,
        "deviation_dn": float(results["fp32"].std()),
        "auto": auto,
    }


def alternate(runs, repeats):
    """The least wall and CPU seconds of each, in turns, after one turn that does not count."""
    results = {name: run() for name, run in runs.items()}
    taken = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    least = {name: np.min(values, 0).tolist() for name, values in taken.items()}
    return {name: {"wall": w, "cpu": c} for name, (w, c) in least.items()}, results


def measure_compiled(side, repeats, blocks=6):
    """One group of REC, eager and compiled: what it saves, and what compiling took."""
    torch.manual_seed(0)
    rec = REC(groups=1, blocks=blocks).eval().requires_grad_(False)
    rec = rec.to(memory_format=torch.channels_last)
    x = torch.rand(1, 1, 4, side, side)
    with torch.inference_mode():
        frozen = rec.scene_statistics(x)

    def run(network):
        with torch.no_grad(), computing("bf16", CPU):
            return network(x, None, frozen)

    compiled = torch.compile(rec)
    start = time.perf_counter()
    run(compiled)
    first = time.perf_counter() - start
    both = {"eager": lambda: run(rec), "compiled": lambda: run(compiled)}
    seconds, _ = alternate(both, repeats)
    return {"blocks": blocks, "side": side, "first_call": first, "seconds": seconds}


def print_table(rows):
    print("| network | views | plain [s] | fp32 | bf16 | fp32 / bf16 | plain / bf16 ", end="")
    print("| rms [DN] | PSNR [dB] | auto |\n" + "|---" * 10 + "|")
    for row in rows:
        views = " x ".join(map(str, row["views"][1:]))
        seconds = " | ".join(f"{row['seconds'][k]['cpu']:.2f}" for k in ("plain", "fp32", "bf16"))
        print(
            f"| {row['network']} | {views} | {seconds} "
            f"| {row['fp32_over_bf16']:.2f} | {row['plain_over_bf16']:.2f} "
            f"| {row['rms_dn']:.2f} | {row['psnr_db']:.1f} | {row['auto']} |"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", type=int, default=256, help="rows and columns of the views")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=NETWORKS, action="append")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(name, options.side, options.repeats) for name in options.only or NETWORKS]
    print_table(rows)
    results = {
        "machine": {
            "cpus": os.cpu_count(),
            "torch": torch.__version__,
            "multiplies_bf16": multiplies_bf16(CPU),
            "threads": torch.get_num_threads(),
        },
        "networks": rows,
    }
    if options.compile:
        results["compiled"] = measure_compiled(options.side, options.repeats)
        print(json.dumps(results["compiled"], indent=2))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
