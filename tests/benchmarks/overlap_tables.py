"""What bench_overlaps.py found, as Markdown, beside what is asked for."""

import numpy as np

from tests.benchmarks.overlap_set import BANDS

SPLINE, KEYS, BOTH = "spline", "bicubic (Keys)", "l1bsr, both views"
GOALS = (  # [dB] the first row is ahead of the second by so much, true motion
    ("l1bsr", SPLINE, 1.5),
    ("l1bsr", KEYS, 1.5),
    ("l1bsr", "l1bsr-supervised", None),
    (BOTH, "l1bsr", None),
)
ALIGNED = 0.05  # [px of the input] misalignment of a band
REAL = np.array([0.1, np.inf, 0.1, 0.35])  # the same of real crops, by band
_BIAS, _PATTERN = 1e-3, 1.5


def check(results):
    """Goal to [figure, its standard error or None, whether it holds or None where none is set]."""
    found, places = results["simulated"], np.array(results["places"])
    checks = {}
    true = found["true"]
    for first, second, goal in GOALS:
        if first in true and second in true:
            mean, error = compare(true[first]["psnr"] - true[second]["psnr"], places)
            name = f"true motion: {first} - {second}" + ("" if goal is None else f" >= {goal} dB")
            checks[name] = [mean, error, None if goal is None else mean >= goal]
    for motion, rows in found.items():
        if "l1bsr" in rows:
            most = float(rows["l1bsr"]["misaligned"].mean(0).max())
            checks[f"{motion}: misalignment of l1bsr <= {ALIGNED} px"] = [
                most, None, most <= ALIGNED,
            ]  # fmt: skip
    if "l1bsr" in results["real"]:
        real = results["real"]["l1bsr"]
        bias, ratio = float(np.abs(real["bias"][:, 1]).max()), float(real["checkerboard"].max())
        worst = float((real["misalignment"] / REAL).max())
        rmse = float((real["rmse"][:, 1] / real["noise"]).max())
        more = real["beyond"] / results["real"]["geometric"]["beyond"]
        checks |= {
            "real: misalignment over its goal <= 1": [worst, None, worst <= 1],
            f"real: bias of the green <= {_BIAS:.1%}": [bias, None, bias <= _BIAS],
            "real: RMSE of the green over the noise <= 1": [rmse, None, rmse <= 1],
            "real: power beyond the input's Nyquist over geometric's, least of B02 B03 B04 > 1": [
                float(more[:3].min()),
                None,
                bool(more[:3].min() > 1),
            ],
            # what the spline has there is mostly noise and alias, which a network takes out
            "real: the same of B08": [float(more[3]), None, None],
            f"real: checkerboard < {_PATTERN}": [ratio, None, ratio < _PATTERN],
        }
    return checks


def compare(differences, places):
    """Mean over bands and overlaps, and its standard error over places."""
    means = [differences[places == place].mean() for place in np.unique(places)]
    error = np.std(means, ddof=1) / len(means) ** 0.5 if len(means) > 1 else np.nan
    return float(differences.mean()), float(error)


def print_results(results):
    found = results["simulated"]
    _print_figures(found)
    _print_misalignment(found)
    print("\nThe motion told is off by, B02 B04 B08 [px], mean and median over overlaps:")
    for motion, error in results["errors of motion"].items():
        moving = error[:, [0, 2, 3]]
        mean, median = (_cells(f(moving, 0), 3, " ") for f in (np.mean, np.median))
        print(f"- {motion}: {mean}, {median}")
    print("\nShare of the power beyond the input's Nyquist frequency over the truth's:")
    for row, figures in found["true"].items():
        ratio = figures["beyond"].mean(0) / found[""]["truth"]["beyond"].mean(0)
        print(f"- {row}: {_cells(ratio, 2, ' ')}")
    if results["ablation"]:
        _print_ablation(results["ablation"], np.array(results["places"]))
    if results["real"]:
        _print_real(results["real"])
    print()
    for goal, (figure, error, holds) in results["checks"].items():
        spread = "" if error is None else f" +- {error:.2f}"
        verdict = {None: "", True: ", holds", False: ", FAILS"}[holds]
        print(f"- {goal}: {figure:.4g}{spread}{verdict}")
    print(f"\nLeft out for want of weights: {', '.join(results['left out']) or 'none'}")


def _print_figures(found):
    print("\n### Simulated overlaps, x2\n")
    heads = [*(f"PSNR {b}" for b in BANDS), "mean", *(f"SSIM {b}" for b in BANDS), "mean", "SAM"]
    print(f"| motion | method | {' | '.join(heads)} |")
    print("|---" * (len(heads) + 2) + "|")
    for motion, rows in found.items():
        for row, figures in rows.items():
            if row == "truth":
                continue
            db, alike = figures["psnr"].mean(0), figures["ssim"].mean(0)
            cells = [_cells([*db, db.mean()], 2), _cells([*alike, alike.mean()], 4)]
            print(f"| {motion} | {row} | {' | '.join(cells)} | {figures['sam'].mean():.3f} |")


def _print_misalignment(found):
    print("\n### Misalignment [px of the input]\n")
    heads = [*(f"{b} to truth" for b in BANDS), *(f"{b} to B03" for b in BANDS if b != "B03")]
    print(f"| motion | method | {' | '.join(heads)} |")
    print("|---" * (len(heads) + 2) + "|")
    for motion, rows in found.items():
        for row, figures in rows.items():
            own = figures["misaligned"].mean(0) if "misaligned" in figures else np.zeros(len(BANDS))
            green = np.median(figures["to green"], 0)[[0, 2, 3]]
            print(f"| {motion} | {row} | {_cells(own, 3)} | {_cells(green, 3)} |")


def _print_ablation(gains, places):
    print("\n### Alias and band shift: gain over the spline, each on its own kind [dB]\n")
    print(f"| data | spline, mean | {' | '.join(BANDS)} | gain, mean |")
    print("|---" * (len(BANDS) + 3) + "|")
    over = {}
    for kind, both in gains.items():
        after, before = both[:, 0], both[:, 1]
        over[kind] = after - before
        mean, error = compare(over[kind], places)
        print(
            f"| {kind} | {before.mean():.2f} | {_cells(over[kind].mean(0), 2)} | "
            f"{mean:.2f} +- {error:.2f} |"
        )
    if len(over) == 4:
        print(f"\n{conclude(over, places)}")


def conclude(over, places):
    """What the four gains say, in a line."""
    worth = {
        "alias with shifts": over["full"] - over["no-alias"],
        "alias without shifts": over["no-shift"] - over["neither"],
        "shifts with alias": over["full"] - over["no-shift"],
        "shifts without alias": over["no-alias"] - over["neither"],
    }
    said = "; ".join(
        "{}: {:+.2f} +- {:.2f} dB".format(k, *compare(v, places)) for k, v in worth.items()
    )
    together, error = compare(worth["shifts with alias"] - worth["shifts without alias"], places)
    if together > 2 * error and together > 0:
        verdict = "each is worth more beside the other: the gain needs both"
    elif together < -2 * error:
        verdict = "each is worth less beside the other: the gain does not need both"
    else:
        verdict = "whether the gain needs both does not show"
    return f"{said}. Together {together:+.2f} +- {error:.2f} dB: {verdict}."


def _print_real(real):
    print("\n### The five real crops\n")
    heads = [
        *(f"misalignment {b} [px]" for b in BANDS if b != "B03"),
        *(f"RMSE {b} [DN]" for b in BANDS),
        "bias B03 (worst) [%]",
        "beyond Nyquist (B02 B03 B04 B08) [%]",
        "checkerboard",
    ]
    print(f"| method | {' | '.join(heads)} |")
    print("|---" * (len(heads) + 1) + "|")
    for model, figures in real.items():
        bias = figures["bias"][:, 1]
        cells = [
            _cells(figures["misalignment"][[0, 2, 3]], 3),
            _cells(figures["rmse"].mean(0), 2),
            f"{100 * bias[np.abs(bias).argmax()]:.4f}",
            _cells(100 * figures["beyond"], 3, " "),
            _cells(figures["checkerboard"], 2, " "),
        ]
        print(f"| {model} | {' | '.join(cells)} |")
    noise = next(iter(real.values()))["noise"].mean()
    print(f"\nNoise of the green there: {noise:.2f} DN.")


def _cells(values, digits, between=" | "):
    return between.join(f"{v:.{digits}f}" for v in values)
