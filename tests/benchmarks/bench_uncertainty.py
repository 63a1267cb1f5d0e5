"""What `--uncertainty` is worth: spread against error where the truth is known.

    python tests/benchmarks/bench_uncertainty.py --json out.json
    python tests/benchmarks/bench_uncertainty.py --json out.json --ship   # those that ship, too

For each model that has a spread: bursts of the twelve scenes of ``burst_set.py`` (48 x 48 px,
motion told 0.02 px wrong at random), or overlaps of ``overlap_set.py`` (112 x 112 px, one view,
motion by ``register_bands``), with some frames and noises. Error: result less truth, behind optics
and pixel, 8 fine pixels of border left out. ``error^2 = (factor * spread)^2 + floor^2`` is fitted
on every second scene, by likelihood of a normal error, over all kinds together; figures are of the
others:

- factor, floor: of each kind by itself, to compare with those of all kinds, which ship;
- error, sigma: root mean squares [DN]; z: of error / sigma, 1 is right;
- 1 sigma, 2 sigma: share of errors within; 68.3 and 95.4 % where they are normal;
- rank: Spearman's correlation of sigma and the error's size;
- gain, ause: the pixels of highest sigma are left out, more and more of them. AUSE is the area
  between the error (rms) of what is left and that of leaving out by the error itself, in units of
  the whole error; the gain is how much of that order's profit over chance is reached (1 is all).
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.stats import spearmanr

import l1bsr_geo.models
from l1bsr_geo.models.calibration import Calibration
from l1bsr_geo.models.ensemble import Ensemble
from l1bsr_geo.models.registry import Model
from tests.benchmarks import burst_set, overlap_set

SHIPPED = Path(l1bsr_geo.models.__file__).with_name("calibrations.json")
SIDE, BORDER, MISTOLD = 48, 8, 0.02
LEAST_KEPT = 0.05  # share of the pixels at which sparsification ends


@dataclass(frozen=True)
class Kind:
    """Inputs that are alike: frames, noise (times the instrument's), exposures."""

    frames: int
    noise: float
    several: bool = False

    def __str__(self):
        frames = f"{self.frames} frames, " if self.frames > 1 else ""
        return f"{frames}noise x{self.noise:g}" + (", several exposures" if self.several else "")


ONE = (Kind(5, 2.5), Kind(15, 1.0), Kind(15, 2.5), Kind(30, 2.5))
SEVERAL = (Kind(15, 1.0, True), Kind(15, 2.5, True))
ROWS = {  # model, scale: kinds
    ("dsa", 2): ONE,
    ("dsa", 3): ONE,
    ("hdr-dsp", 2): SEVERAL,
    ("l1bsr", 2): (Kind(1, 0.5), Kind(1, 1.0), Kind(1, 2.0)),
    ("shift-and-add", 2): ONE[:3],
    ("shift-and-add", 3): ONE[:3],
    ("act", 2): (ONE[0], ONE[2], SEVERAL[1]),
    ("act", 3): (ONE[2],),
}


def measure_burst(model, kind, index):
    """Errors and spreads of a burst [DN], flat."""
    made = burst_set.read_sample(
        burst_set.TEST, index, scale=model.spec.scale, side=SIDE, several=kind.several,
        noise=kind.noise,
    ).batch  # fmt: skip
    views, flow, exposures = (
        v[:, : kind.frames].numpy() for v in (made.views, made.flow, made.exposures)
    )
    wrong = np.random.default_rng([index, 7]).normal(0, MISTOLD, flow.shape[:4]).astype(np.float32)
    wrong[:, 0] = 0
    inputs = views, flow + wrong[..., None, None]
    result = model.restore(*inputs, exposures=exposures)
    spread = model.spread(Ensemble("left-out")).restore(*inputs, exposures=exposures)
    return _inside(result - made.truth.numpy(), BORDER), _inside(spread, BORDER)


def measure_bands(model, kind, index):
    """The same of one view of an overlap."""
    full = overlap_set.read_overlaps(index, noise=kind.noise)["full"]
    made, border = overlap_set.with_registration(full), overlap_set.border_of(full)
    inputs = made.views[:, :1].numpy(), made.flow[:, :1].numpy()
    result = model.restore(*inputs)
    spread = model.spread(Ensemble("turned")).restore(*inputs)
    return _inside(result - made.truth.numpy(), border), _inside(spread, border)


def fit(error, spread):
    """Factor and floor of the greatest likelihood."""
    squares, variance = error.astype(np.float64) ** 2, spread.astype(np.float64) ** 2
    unit = squares.mean()

    def cost(logs):
        there = np.exp(2 * logs[0]) * variance + np.exp(2 * logs[1]) * unit
        return (np.log(there / unit) + squares / there).mean()

    found = minimize(cost, [0.0, -0.5], method="Nelder-Mead")
    return float(np.exp(found.x[0])), float(np.exp(found.x[1]) * np.sqrt(unit))


def judge(error, sigma):
    """What is said of a sigma, by the errors that there were."""
    z = np.abs(error) / sigma
    curve, oracle = sparsify(error, sigma), sparsify(error, np.abs(error))
    by_chance = 1 - oracle.mean()
    return {
        "error": float(np.sqrt((error**2).mean())),
        "sigma": float(np.sqrt((sigma**2).mean())),
        "z": float(np.sqrt((z**2).mean())),
        "1 sigma": float((z <= 1).mean()),
        "2 sigma": float((z <= 2).mean()),
        "rank": float(spearmanr(sigma, np.abs(error)).statistic),
        "ause": float((curve - oracle).mean()),
        "gain": float((1 - curve.mean()) / by_chance),
    }


def sparsify(error, sigma):
    """Error (rms) of what is left, over that of all, as more and more of highest sigma is not."""
    ordered = (error.astype(np.float64) ** 2)[np.argsort(sigma)]
    counts = np.linspace(LEAST_KEPT, 1, 50) * len(ordered)
    left = np.cumsum(ordered)[counts.astype(int) - 1] / counts.astype(int)
    return np.sqrt(left / left[-1])


def measure_row(name, scale, kinds, scenes):
    """Calibration of a model, and its figures."""
    model = Model(name, scale=scale, device="cpu", precision="fp32")
    measure = measure_bands if model.spec.bands else measure_burst
    found = {kind: [measure(model, kind, i) for i in range(scenes)] for kind in kinds}
    fitted = {kind: _join(parts[::2]) for kind, parts in found.items()}
    stated = {kind: _join(parts[1::2]) for kind, parts in found.items()}
    factor, floor = fit(*_join(fitted.values()))

    def figures(error, spread):
        return judge(error, np.sqrt((factor * spread) ** 2 + floor**2))

    whole = figures(*_join(stated.values()))
    row = {
        "model": name,
        "scale": scale,
        "weights_sha256": model.weights_sha256,
        "method": "turned" if model.spec.bands else "left-out",
        "factor": round(factor, 4),
        "floor": round(floor, 3),
    }
    kinds = {}
    for kind in found:
        own = fit(*fitted[kind])
        kinds[str(kind)] = {"factor": own[0], "floor": own[1], **figures(*stated[kind])}
        kinds[str(kind)]["spread"] = float(np.sqrt((stated[kind][1] ** 2).mean()))
    return row, {"all": whole, **kinds}


def _shipped(rows):
    """What the package is given of the rows."""
    told = []
    for name, scale in ROWS:
        if row := rows.get(f"{name}-{scale}"):
            one, two = (round(100 * row["figures"]["all"][f"{n} sigma"]) for n in (1, 2))
            kind = "Sentinel-2 overlaps" if name == "l1bsr" else "SkySat bursts"
            measured = (
                f"measured on simulated {kind}; of other scenes there {one} % of the errors are "
                f"within 1 sigma, {two} % within 2"
            )
            told.append({**row["calibration"], "measured": measured})
    return told


def _rounded(found):
    if isinstance(found, dict):
        return {name: _rounded(value) for name, value in found.items()}
    return round(found, 4) if isinstance(found, float) else found


def _join(parts):
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _inside(image, border):
    return image[..., border:-border, border:-border].ravel()


def _print(row, figures):
    print(f"\n{row['model']} x{row['scale']}: {Calibration(row['factor'], row['floor'])}")
    names = ("spread", "factor", "floor", *figures["all"])
    print(" " * 34 + "".join(f"{name:>9}" for name in names))
    for kind, told in figures.items():
        cells = (f"{told[n]:9.3f}" if n in told else " " * 9 for n in names)
        print(f"{kind:34}" + "".join(cells), flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ship", action="store_true", help="write the calibrations that ship")
    parser.add_argument("--rows", help="such as dsa-2,l1bsr-2; all by default")
    parser.add_argument("--scenes", type=int, default=12)
    options = parser.parse_args()
    wanted = options.rows.split(",") if options.rows else [f"{n}-{s}" for n, s in ROWS]
    results = {
        "set": {"photographs": burst_set.has_photographs(), "scenes": options.scenes},
        "machine": {"torch": torch.__version__, "precision": "fp32"},
        "rows": {},
    }
    if options.json and options.json.is_file():  # rows that are not run stay
        results["rows"] = json.loads(options.json.read_text())["rows"]
    for (name, scale), kinds in ROWS.items():
        if f"{name}-{scale}" not in wanted:
            continue
        start = time.process_time()
        row, figures = measure_row(name, scale, kinds, options.scenes)
        seconds = round(time.process_time() - start, 1)
        told = {"calibration": row, "figures": figures, "seconds": seconds}
        results["rows"][f"{name}-{scale}"] = told
        _print(row, figures)
        if options.json:
            options.json.write_text(json.dumps(_rounded(results), indent=1) + "\n")
    if options.ship:
        SHIPPED.write_text(json.dumps(_shipped(results["rows"]), indent=1) + "\n")


if __name__ == "__main__":
    main()
