"""Cross-spectral registration: end-point error per pair of bands, where the motion is known.

    python tests/benchmarks/bench_csr.py --json out.json        about 5 minutes
    ... --scenes made                                    without the photographs of ../shared
    ... --weights runs/csr/best.safetensors              in place of the shipped ones

Simulated overlaps of two Sentinel-2 detectors (MTF, alias, noise, relief), of photographs that
nothing was trained on; the moving band is cut elsewhere than the target, so that displacements
reach 10 px in either direction. Mean over images of the mean end-point error [px], 12 px from the
border; pairs within one detector and pairs across both. Lost: images with an error above 1 px.

    csr                 compact CSR
    hourglass           the CSR of L1BSR, where its weights were fetched
    register_bands      this package's own registration, of the two bands alone
    phase correlation   its first stage: blocks of 64 px, gradient orientation
    TV-L1               scikit-image's, where it is installed, of contrast-normalised bands
    geometry            the simulator's nominal shifts, without what a product does not tell
    none                no motion at all
"""

import argparse
import importlib.util
import json
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import rasterio
import torch
from scipy import ndimage

from l1bsr_geo.errors import L1bsrGeoWarning, MissingInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.models.checkpoint import find_weights
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.registration.bands import register_bands
from l1bsr_geo.registration.phase import band_pass, block_starts, correlate_blocks, orientation
from l1bsr_geo.simulation.multiband import CROPS, bands_from_photograph, match_crop
from l1bsr_geo.simulation.overlap_motion import BandShifts, OverlapMotion
from l1bsr_geo.simulation.overlaps import needed_scene, simulate_overlap
from l1bsr_geo.simulation.scenes import procedural_scene
from l1bsr_geo.training.csr import CSRObjective, band_pairs, contrast
from l1bsr_geo.training.objective import Batch

AERIAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "aerial"
HELD_OUT = (
    "brighton/DJI_0024.jpg",
    "brighton/DJI_0025.jpg",
    "seneca/IMG_0578.jpg",
    "seneca/IMG_0589.jpg",
    "seneca/IMG_0600.jpg",
    "seneca/IMG_0611.jpg",
)
SHIFTS = BandShifts()
WINDOW = 640  # [5 m px] that take on the figures of a real crop
ROOM = 8  # [px] that the moving band may be cut elsewhere
BORDER = 12


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


def make_scenes(which, side):
    if which == "made" or not AERIAL.is_dir():
        for seed in range(len(HELD_OUT)):
            made = procedural_scene((0, 0, 5.0 * side, 5.0 * side), "EPSG:32631", seed)
            yield f"made {seed}", made.pixels
        return
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    for name in HELD_OUT:
        with rasterio.open(AERIAL / name) as raster:
            photograph = raster.read()
        yield (
            name,
            bands_from_photograph(photograph, "infrared" if "seneca" in name else "colour", 2),
        )


def make_overlaps(which, size, each):
    """Overlaps, and the flow that is nominal."""
    shape = (size + 2 * ROOM,) * 2
    needed = needed_scene(shape, SHIFTS)
    side = max(WINDOW, *needed)
    exact = replace(SHIFTS, spread=0.0, ramp=0.0, relief=0.0, between=0.0)
    views, flows, nominal, names = [], [], [], []
    for k, (name, bands) in enumerate(make_scenes(which, side)):
        for n in range(each):
            seed = 1000 * k + n
            rng = np.random.default_rng([seed, 1])
            y, x = (int(rng.integers(m - side + 1)) for m in bands.shape[1:])
            scene = match_crop(bands[:, y : y + side, x : x + side], CROPS[seed % len(CROPS)])
            y, x = (int(rng.integers(side - m + 1)) for m in needed)
            cut = scene[:, y : y + needed[0], x : x + needed[1]]
            made = simulate_overlap(cut, shape, shifts=SHIFTS, seed=seed)
            # the same draws, of which only the nominal shifts are left
            told = OverlapMotion.draw(np.random.default_rng(seed), shape, exact)
            apart = made.motion.affine[..., 2] - told.affine[..., 2]
            assert np.abs(apart).max() <= 3 * SHIFTS.spread + SHIFTS.between + 1e-6
            views.append(made.views.astype(np.float32))
            flows.append(made.flow)
            nominal.append(told.flow(shape))
            names.append(name)
    stacks = (torch.from_numpy(np.stack(v)) for v in (views, flows, nominal))
    return *stacks, names


def network(name, weights=None):
    """A CSR by name, or None where it has no weights here."""
    entry = find_entry(name)
    try:
        restorer = entry.load(find_weights(name, weights, entry.weights))
    except MissingInputError as error:
        print(f"{name}: {error}")
        return None
    trained = entry.trained_part(restorer).eval()

    @torch.inference_mode()
    def run(images, _):
        pair = torch.from_numpy(images)[None]
        return trained(contrast(pair) if name == "csr-hourglass" else pair)[0].numpy()

    return run


def by_register_bands(images, _):
    stack = BandStack(
        {name: Pixels(image) for name, image in zip("AB", images, strict=True)},
        {name: GeoGrid(images.shape[1:]) for name in "AB"},
        "A",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", L1bsrGeoWarning)
        flow = register_bands(stack, search=12)
    return flow.read(Window(0, 0, images.shape[2], images.shape[1]))[1]


def by_phase_correlation(images, _, block=64):
    seen = np.ones(images.shape[1:], bool)
    first, second = (orientation(band_pass(image, seen)) for image in images)
    y0, x0 = (block_starts(n, block, block // 2) for n in images.shape[1:])
    guess = np.zeros((len(y0), len(x0), 2))
    found = correlate_blocks(first, second, guess, y0, x0, (block, block), 12)
    y, x = (np.arange(n) + 0.5 for n in images.shape[1:])
    at = [np.interp(v, c, np.arange(len(c))) for v, c in ((y, found.y), (x, found.x))]
    grid = np.meshgrid(*at, indexing="ij")
    shifts = np.moveaxis(found.shift, -1, 0)
    return np.stack([ndimage.map_coordinates(v, grid, order=1, mode="nearest") for v in shifts])


def by_tvl1():
    """scikit-image's; it is no dependency of this package."""
    if importlib.util.find_spec("skimage") is None:
        print("TV-L1: scikit-image is not installed here, so there is no such row")
        return None
    from skimage.registration import optical_flow_tvl1

    def run(images, _):
        first, second = (
            np.clip(contrast(torch.from_numpy(i)).numpy() / 6 + 0.5, 0, 1) for i in images
        )
        return optical_flow_tvl1(first, second)[::-1]

    return run


def measure(methods, overlaps, size):
    views, flow, nominal, _ = overlaps
    whole, cuts = CSRObjective(room=0), CSRObjective(reach=10, room=ROOM)
    count = len(views)
    rng = np.random.default_rng(0)
    inner = (slice(BORDER, size - BORDER),) * 2
    room = (slice(ROOM, ROOM + size),) * 2
    errors = {name: {} for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for name, target, moving in band_pairs(4):
        chosen = [target] * count, [moving] * count
        pairs = cuts.pairs(Batch(views, flow), *chosen, rng)
        told, true = (
            whole.pairs(Batch(views, f), *chosen, rng).flow[..., *room] for f in (nominal, flow)
        )
        foretold = (pairs.flow + told - true).numpy()
        key = f"{name} {'one detector' if target[0] == moving[0] else 'two detectors'}"
        for k in range(count):
            images, truth = pairs.images[k].numpy(), pairs.flow[k].numpy()
            known = pairs.known[k, 0].numpy()[inner]
            for method, run in methods.items():
                start = time.process_time()
                found = run(images, foretold[k])
                seconds[method] += time.process_time() - start
                apart = (found - truth)[:, *inner]
                figures = [np.hypot(*apart), *np.abs(apart)]
                errors[method].setdefault(key, []).append([float(f[known].mean()) for f in figures])
        print(f"   {key}", flush=True)
    images = count * len(band_pairs(4))
    return errors, {name: value / images for name, value in seconds.items()}


def show(errors, seconds, where):
    keys = [key for key in next(iter(errors.values())) if key.endswith(where)]
    labels = [key.split()[0].replace("_", "-") for key in keys]
    print(f"\nend-point error [px], {where}: mean over images")
    print(
        " " * 18,
        *(f"{label:>8s}" for label in labels),
        "    mean  median  lost   x      y     CPU s",
    )
    rows = {}
    for method, found in errors.items():
        table = np.array([found[key] for key in keys])  # pairs, images, (length, x, y)
        means = table.mean(1)
        row = dict(zip(labels, means[:, 0].tolist(), strict=True))
        row |= {
            "mean": float(means[:, 0].mean()),
            "median": float(np.median(table[..., 0])),
            "lost": float((table[..., 0] > 1).mean()),
            "x": float(means[:, 1].mean()),
            "y": float(means[:, 2].mean()),
            "CPU seconds": seconds[method],
        }
        rows[method] = row
        print(
            f"{method:18s}",
            *(f"{row[label]:8.3f}" for label in labels),
            f"{row['mean']:8.3f}{row['median']:8.3f}{row['lost']:6.1%}"
            f"{row['x']:7.3f}{row['y']:7.3f}{row['CPU seconds']:8.3f}",
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scenes", choices=("all", "made"), default="all")
    parser.add_argument("--weights", type=Path, help="of compact CSR")
    parser.add_argument("--size", type=int, default=128, help="of the images [px]")
    parser.add_argument("--each", type=int, default=2, help="overlaps of a photograph")
    arguments = parser.parse_args()
    methods = {
        "csr": network("csr", arguments.weights),
        "hourglass": network("csr-hourglass"),
        "register_bands": by_register_bands,
        "phase correlation": by_phase_correlation,
        "TV-L1": by_tvl1(),
        "geometry": lambda images, foretold: foretold,
        "none": lambda images, foretold: np.zeros_like(foretold),
    }
    there = {name: run for name, run in methods.items() if run is not None}
    overlaps = make_overlaps(arguments.scenes, arguments.size, arguments.each)
    errors, seconds = measure(there, overlaps, arguments.size)
    figures = {
        "scenes": sorted(set(overlaps[-1])),
        "overlaps": len(overlaps[0]),
        "size": arguments.size,
        "absent": sorted(set(methods) - set(there)),
        "one detector": show(errors, seconds, "one detector"),
        "two detectors": show(errors, seconds, "two detectors"),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
