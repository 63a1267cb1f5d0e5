"""Multi-image super-resolution: the published table in kind, and several exposures.

    python tests/benchmarks/bench_multi_image.py --runs runs --json out.json

Table 1: PSNR of x2 and x3 for 5, 16 and 30 frames, with true motion and with motion estimated by
``align_frames``. Table 2: bursts of several exposures (0.25, 0.5, 1 and 2 times the reference's),
told exactly or up to 5 % wrong; saturated pixels are no data, but of the reference.

Bursts: ``burst_set.py``, twelve scenes that no network has seen, 96 x 96 px in, motion up to 1 px,
2.5 times SkySat's noise, fixed seeds. Truth is the scene behind optics and pixel, at exposure 1.
PSNR: peak 3400 DN, 8 fine pixels of border left out, mean over scenes. With several exposures a
result is first scaled to the truth's sum, as in the protocol of HDR-DSP: nobody knows which
exposure is wrong. HighRes-net is scored but for a constant (cPSNR, its own measure), which its loss
leaves open. +-: standard error of the mean difference, paired by scene.

ACT's noise is chosen on validation bursts (``choose_act``) made like those of the test. Networks
run in fp32. Weights: those that ship, else FOLDER/ROW/best.safetensors of ``--runs FOLDER`` (ROW is
dsa-supervised, highres-net, dsa-x3 ...), or ``--weights ROW=FILE``; rows without are left out.

"off the grid" (METHODS n2): the grid is moved by half a fine pixel, so that the reference's samples
lie between fine pixels, and the result is moved back by bicubic interpolation. "low-pass alone":
the ordinary result behind the low-pass of that interpolation, which is not moved.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from l1bsr_geo.models.act import ACT
from l1bsr_geo.models.checkpoint import find_shipped
from l1bsr_geo.models.classical import Bicubic
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.shift_and_add import ShiftAndAdd
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.ops.warp import sample
from l1bsr_geo.training.act import choose_act
from l1bsr_geo.training.burst_loss import choose_frames, psnr, restore, shift_grid
from l1bsr_geo.training.objective import Batch
from tests.benchmarks import burst_set
from tests.benchmarks.multi_image_tables import check, print_tables

BORDER = 8
NETWORKS = {  # row to the model whose weights it needs
    "highres-net": "highres-net",
    "dsa": "dsa",
    "dsa-supervised": "dsa",
    "hdr-dsp": "hdr-dsp",
}
PLAIN = "act, as it comes"
OFF, LOW = "dsa, off the grid", "dsa, low-pass alone"
ROWS = {  # of bursts of one or several exposures, by scale
    ("one", 2): ("bicubic", "shift-and-add", "highres-net", PLAIN, "act", "dsa", "dsa-supervised",
                 "hdr-dsp"),
    ("one", 3): ("bicubic", "shift-and-add", PLAIN, "act", "dsa"),
    ("several", 2): ("shift-and-add", PLAIN, "act", "dsa", "hdr-dsp"),
}  # fmt: skip


def find_file(row, scale, runs, given):
    """The weights of a row, or None."""
    name = row if scale == 2 else f"{row}-x{scale}"
    if name in given:
        return given[name]
    shipped = find_shipped(row, None if scale == 2 else scale)
    trained = (runs or Path()) / name / "best.safetensors"
    return shipped or (trained if runs and trained.is_file() else None)


@lru_cache
def load(row, path, scale):
    """The network that a weights file says it is for, with its weights."""
    return find_entry(NETWORKS[row]).load(path, scale).eval().requires_grad_(False)


def build(row, scale, files, noise):
    """The restorer of a row."""
    if row in NETWORKS:
        return load(row, files[row], scale)
    if row == "bicubic":
        return Bicubic(scale, "centre")
    if row == "shift-and-add":
        return ShiftAndAdd(scale)
    return ACT(scale) if row == PLAIN else ACT(scale, noise)


def run(restorer, batch):
    """(1, 1, scale * H, scale * W) [DN at exposure 1]."""
    with torch.inference_mode():
        if isinstance(restorer, Bicubic):
            return restorer(batch.views)
        return restore(restorer, batch)


def score(row, fine, truth, fit=False):
    """PSNR [dB]; of the result scaled to the truth's sum where ``fit``."""
    inside = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    if fit:
        fine = fine * (truth[inside].sum() / fine[inside].sum())
    if row == "highres-net":
        fine = fine - (fine - truth)[inside].mean()
    return round(float(psnr(fine, truth, BORDER)), 4)


def move(image, pixels):
    """Pixel p of the result is the image at p + pixels, in both directions; bicubic."""
    height, width = image.shape[-2:]
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    return sample(image, (x + pixels)[None], (y + pixels)[None], "bicubic")


def move_exactly(image, pixels, margin=32):
    """The same in Fourier space, where no amplitude changes; mirrored around."""
    wide = torch.nn.functional.pad(image.double(), (margin,) * 4, mode="reflect")
    f_y, f_x = (torch.fft.fftfreq(n, dtype=torch.float64) for n in wide.shape[-2:])
    turn = torch.exp(2j * torch.pi * pixels * (f_x + f_y[:, None]))
    moved = torch.fft.ifft2(torch.fft.fft2(wide) * turn).real
    return moved[..., margin:-margin, margin:-margin].to(image)


def off_grid(restorer, batch):
    """A result off the reference's grid, and the ordinary one behind the low-pass of the way back.

    Fine pixel i of the reference's grid lies at i + 1/2 of the moved one.
    """
    shift = torch.full((2,), 0.5 / restorer.spec.scale)
    moved = replace(batch, flow=shift_grid(batch.flow, shift))
    return move(run(restorer, moved), 0.5), move_exactly(move(run(restorer, batch), 0.5), -0.5)


def measure(task):
    """One scene: {column: {row: [dB, by number of frames]}}, and the errors of its motion."""
    (kind, scale), index, side, counts, rows, files, noise = task
    several, found, motion = kind == "several", {}, None
    for error in (0.0, 0.05) if several else (0.0,):
        burst = burst_set.read_sample(
            burst_set.TEST, index, scale=scale, side=side, several=several, error=error
        )
        batches = {f"{100 * error:.0f} % wrong" if several else "true": burst.batch}
        if not several:
            batches["estimated"], motion = burst_set.with_estimated_motion(burst)
        for column, batch in batches.items():
            if batch is None:
                found[column] = {row: [float("nan")] * len(counts) for row in rows}
                continue
            found[column] = {}
            frames = [choose_frames(batch, np.arange(n)[None]) for n in counts]
            for row in rows:
                restorer = build(row, scale, files, noise)
                if column == "estimated" and not restorer.spec.flow and np.isfinite(motion).all():
                    found[column][row] = found["true"][row]
                    continue
                fine = [run(restorer, few) for few in frames]
                found[column][row] = [score(row, f, batch.truth, several) for f in fine]
            if column == "true" and "dsa" in rows:
                pairs = [off_grid(build("dsa", scale, files, noise), few) for few in frames]
                for row, fine in zip((OFF, LOW), zip(*pairs, strict=True), strict=True):
                    found[column][row] = [score(row, f, batch.truth) for f in fine]
    return found, [] if motion is None else motion[1:].round(4).tolist()


class Drawn:
    """Samples that are there already, as what `choose_act` draws from."""

    def __init__(self, samples):
        parts = zip(*(vars(s.batch).values() for s in samples), strict=True)
        self.batch = Batch(*map(torch.cat, parts))

    def draw(self, rng, count):
        return self.batch


def choose_noise(task):
    """ACT's parameters for such bursts, and what was tried."""
    (kind, scale), side, counts, places = task
    options = {"scale": scale, "side": side, "several": kind == "several"}
    samples = [burst_set.read_sample(burst_set.VALIDATION, k, **options) for k in range(places)]
    noises = (16.0, 24.0, 32.0, 40.0, 48.0)
    return choose_act(
        Drawn(samples), scale=scale, noises=noises, counts=counts, bursts=places
    ).as_dict()


def gather(figures, counts):
    """Scene by scene to {column: {row: {T: [dB of each scene]}}}."""
    return {
        column: {
            row: {t: [scene[column][row][i] for scene in figures] for i, t in enumerate(counts)}
            for row in rows
        }
        for column, rows in figures[0].items()
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="folder of trainings")
    parser.add_argument("--weights", action="append", default=[], metavar="ROW=FILE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scenes", type=int, default=len(burst_set.TEST))
    parser.add_argument("--side", type=int, default=burst_set.SIDE)
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 16, 30])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    given = {row: Path(path) for row, path in (v.split("=", 1) for v in options.weights)}
    known = {f"{r}-x{scale}" if scale > 2 else r for _, scale in ROWS for r in NETWORKS}
    if given.keys() - known:
        parser.error(
            f"--weights: no row {min(given.keys() - known)}, only {', '.join(sorted(known))}"
        )
    start, side, counts, scenes = time.perf_counter(), options.side, options.counts, options.scenes
    files = {
        key: {r: find_file(r, key[1], options.runs, given) for r in rows if r in NETWORKS}
        for key, rows in ROWS.items()
    }
    named = [(f"{r}, x{key[1]}", path) for key, f in files.items() for r, path in f.items()]
    # scenes in processes of one thread each: small images do not keep two threads busy
    pool = ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (1,))
    with pool:
        validated = min(scenes, len(burst_set.VALIDATION))
        asked = [(key, side, counts, validated) for key in ROWS]
        acts = dict(zip(ROWS, pool.map(choose_noise, asked), strict=True))
        tasks = [
            (key, i, side, counts, with_weights, files[key], acts[key]["noise"])
            for key, rows in ROWS.items()
            for with_weights in [[r for r in rows if files[key].get(r, True)]]
            for i in range(scenes)
        ]
        measured = list(pool.map(measure, tasks))
    places = burst_set.TEST[:scenes]
    photographs = burst_set.has_photographs()
    results = {
        "set": {
            "photographs": photographs,
            "side": side,
            "counts": counts,
            "noise": burst_set.NOISE,
            "scenes": [place.name if photographs else "made" for place in places],
            "seeds": list(range(scenes)),
        },
        "groups": [place.group if photographs else "made" for place in places],
        "machine": {"cpus": os.cpu_count(), "torch": torch.__version__, "precision": "fp32"},
        "weights": {name: [path.name, hash_file(path)] for name, path in named if path},
        "left out": sorted({name for name, path in named if not path}),
        "act": {f"{kind}, x{scale}": act for (kind, scale), act in acts.items()},
        "figures": {},
        "motion": {},
    }
    for n, (kind, scale) in enumerate(ROWS):
        figures, motion = zip(*measured[n * scenes : (n + 1) * scenes], strict=True)
        results["figures"][f"{kind}, x{scale}"] = gather(figures, counts)
        results["motion"][f"{kind}, x{scale}"] = motion
    plain = results["figures"]["one, x2"]
    results["checks"] = {column: check(figures) for column, figures in plain.items()}
    results["seconds"] = round(time.perf_counter() - start, 1)
    print_tables(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
