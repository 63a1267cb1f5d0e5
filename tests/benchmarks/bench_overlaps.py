"""Sentinel-2 super-resolution where the truth is known, its ablation, and the five real crops.

    python tests/benchmarks/bench_overlaps.py --runs runs --json out.json

Table 1: 24 simulated overlaps (``overlap_set.py``: 112 x 112 px views of eight places that no
network has seen, fixed seeds), by the motion that is told: the true one, ``register_bands`` without
a prior, CSR. Figures (``image_figures.py``) are of x = DN / 400, peak and data range 1, without
8 fine pixels of border (more where a band moves out of the view), by band; SAM in degrees.
Misalignment [px of the input]: of each band to its truth, mean length over blocks of 32 px (phase
of the cross-spectrum), and to the green by gradient phase correlation of 88 px blocks, median; what
the truth itself has there is the measure's own noise. +-: standard error over places, paired.

Table 2: four short supervised trainings alike, each on its own kind of data (recipes/l1bsr-full,
-no-alias, -no-shift, -neither.yaml), over the spline on that data. They are made by

    l1bsr-geo train l1bsr tests/benchmarks/recipes/l1bsr-full.yaml --data ../shared/data/aerial

and so on, which leaves runs/l1bsr-full.

Table 3: the real crops (``real_crops.py``).

Weights: those that ship, else FOLDER/ROW/best.safetensors of ``--runs FOLDER`` (ROW is l1bsr, csr,
l1bsr-supervised, l1bsr-full ...), or ``--weights ROW=FILE``; rows without are left out, so is
l1bsr-rcan, which takes a GPU to train, unless its weights are given.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from l1bsr_geo.models.checkpoint import find_shipped
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.ops.sampling import pixel_centres, upsample_flow
from l1bsr_geo.ops.warp import sample
from tests.benchmarks import overlap_set, overlap_tables, real_crops
from tests.benchmarks.burst_set import has_photographs
from tests.benchmarks.image_figures import (
    displacements,
    mean_spectrum,
    psnr,
    share_beyond,
    spectral_angle,
    ssim,
)
from tests.e2e.test_real_crops import residuals

NETWORKS = {  # row to the model whose weights it needs
    "csr": "csr",
    "l1bsr": "l1bsr",
    "l1bsr-supervised": "l1bsr",
    "l1bsr-rcan": "l1bsr-rcan",
    **{f"l1bsr-{kind}": "l1bsr" for kind in overlap_set.KINDS},
}
SPLINE, KEYS, BOTH = "spline", "bicubic (Keys)", "l1bsr, both views"


def find_files(runs, given):
    """{row: weights} of the rows that have some."""
    unknown = set(given) - set(NETWORKS)
    if unknown:
        sys.exit(f"--weights {', '.join(unknown)}: there are {', '.join(NETWORKS)}")
    found = {}
    for row in NETWORKS:
        trained = (runs or Path()) / row / "best.safetensors"
        found[row] = given.get(row) or find_shipped(row) or (trained if runs else None)
    return {row: path for row, path in found.items() if path and path.is_file()}


@lru_cache
def load(row, path):
    """The network that a weights file says it is for, with its weights."""
    return find_entry(NETWORKS[row]).load(path).eval().requires_grad_(False)


def run(restorer, batch, views=1):
    """(4, 2 H, 2 W) [DN]."""
    with torch.inference_mode():
        gain = restorer.spec.gain
        flow = (batch.flow[:, :views],) if restorer.spec.flow else ()
        return restorer(batch.views[:, :views] / gain, *flow)[0].double().numpy() * gain


def enlarge_by_keys(batch):
    """What ``Geometric`` does, with Keys' kernel."""
    motion = upsample_flow(batch.flow[0, 0], 2)
    bands = batch.views[0, 0, :, None]
    x, y = pixel_centres(*bands.shape[-2:], 2, like=bands)
    return sample(bands, x + motion[:, 0], y + motion[:, 1])[:, 0].double().numpy()


def restore(batch, files):
    """{row: (4, 2 H, 2 W)} of all rows that there are for such motion."""
    found = {KEYS: enlarge_by_keys(batch), SPLINE: run(Geometric(), batch)}
    for row in ("l1bsr", "l1bsr-supervised", "l1bsr-rcan"):
        if row in files:
            found[row] = run(load(row, files[row]), batch)
    if "l1bsr" in files and batch.views.shape[1] > 1:
        found[BOTH] = run(load("l1bsr", files["l1bsr"]), batch, views=2)
    return found


def figures_of(image):
    """What can be said without the truth."""
    return {
        "to green": np.median(residuals(image, 2), 0).tolist(),
        "beyond": share_beyond(mean_spectrum(image)).tolist(),
    }


def compare(image, truth):
    return figures_of(image) | {
        "psnr": psnr(image, truth).tolist(),
        "ssim": ssim(image, truth).tolist(),
        "sam": spectral_angle(image, truth),
        "misaligned": (np.linalg.norm(displacements(image, truth), axis=-1) / 2).mean(0).tolist(),
    }


def measure(task):
    """One overlap: figures {motion: {row: figures}}, errors of motion, gains of the ablation."""
    index, files = task
    trained = [k for k in overlap_set.KINDS if f"l1bsr-{k}" in files]
    kinds = overlap_set.read_overlaps(index, {"full": 0} | dict.fromkeys(trained))
    full = kinds["full"]
    batches = {"true": full, "register_bands": overlap_set.with_registration(full)}
    if "csr" in files:
        batches["csr"] = overlap_set.with_csr(full, load("csr", files["csr"]))
    n = overlap_set.border_of(full)
    inner = (slice(None), slice(n, -n), slice(n, -n))
    truth = full.truth[0].double().numpy()[inner]
    found, errors = {"": {"truth": figures_of(truth)}}, {}
    for motion, batch in batches.items():
        images = restore(batch, files)
        found[motion] = {row: compare(image[inner], truth) for row, image in images.items()}
        apart = torch.linalg.vector_norm(batch.flow[:, 0] - full.flow[:, 0], dim=2)
        errors[motion] = apart.mean((0, 2, 3)).tolist()
    gains = {}
    for kind in trained:
        batch, n = kinds[kind], overlap_set.border_of(kinds[kind])
        true = batch.truth[0].double().numpy()[:, n:-n, n:-n]
        after, before = (
            psnr(run(restorer, batch)[:, n:-n, n:-n], true)
            for restorer in (load(f"l1bsr-{kind}", files[f"l1bsr-{kind}"]), Geometric())
        )
        gains[kind] = [after.tolist(), before.tolist()]
    return found, errors, gains


def measure_real(task):
    path, weights = task
    models = {"geometric": Model("geometric", device="cpu")}
    if weights:
        models["l1bsr"] = Model("l1bsr", weights, device="cpu")
    return real_crops.measure_crop(path, models)


def gather(parts):
    """A list of equal nested dictionaries to one of arrays, along a new first axis."""
    if isinstance(parts[0], dict):
        return {name: gather([part[name] for part in parts]) for name in parts[0]}
    return np.array(parts)


def to_plain(found):
    if isinstance(found, dict):
        return {name: to_plain(value) for name, value in found.items()}
    return np.round(found, 6).tolist() if isinstance(found, np.ndarray) else found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="folder of trainings")
    parser.add_argument("--weights", action="append", default=[], metavar="ROW=FILE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--overlaps", type=int, default=overlap_set.COUNT)
    parser.add_argument("--crops", type=int, default=5, help="real ones")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    given = {row: Path(path) for row, path in (v.split("=", 1) for v in options.weights)}
    files, start = find_files(options.runs, given), time.perf_counter()
    for row, path in files.items():
        load(row, path)  # what is wrong with weights is said before any work
    # images in processes of one thread each: small ones do not keep two threads busy
    pool = ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (1,))
    with pool:
        crops = pool.map(
            measure_real,
            [(p, files.get("l1bsr")) for p in real_crops.find_crops()[: options.crops]],
        )
        tasks = [(index, files) for index in range(options.overlaps)]
        measured, crops = list(pool.map(measure, tasks)), list(crops)
    found, errors, gains = (gather(list(part)) for part in zip(*measured, strict=True))
    places = np.array(
        [overlap_set.PLACES[i % len(overlap_set.PLACES)].name for i in range(options.overlaps)]
    )
    results = {
        "set": {"photographs": has_photographs(), "size": overlap_set.SIZE, "seeds": len(tasks)},
        "places": places.tolist(),
        "machine": {"cpus": os.cpu_count(), "torch": torch.__version__, "precision": "fp32"},
        "weights": {r: [p.name, p.parent.name, hash_file(p)] for r, p in files.items()},
        "left out": [row for row in NETWORKS if row not in files],
        "simulated": found,
        "errors of motion": errors,
        "ablation": gains,
        "real": {m: real_crops.summarise(crops, m) for m in crops[0]} if crops else {},
    }
    results["checks"] = overlap_tables.check(results)
    results["seconds"] = round(time.perf_counter() - start, 1)
    overlap_tables.print_results(results)
    if options.json:
        options.json.write_text(json.dumps(to_plain(results), indent=1) + "\n")


if __name__ == "__main__":
    main()
