"""What bench_multi_image.py found, as Markdown, beside what is published and what is asked for."""

import numpy as np

PUBLISHED = {  # DSA (Nguyen et al., CVPRW EarthVision 2021), x2, on other scenes, T = 5, 16, 30
    "shift-and-add": (42.99, 47.72, 49.95),
    "highres-net": (45.63, 48.17, 49.05),
    "act": (45.54, 48.38, 50.15),
    "dsa": (45.75, 49.27, 50.45),
    "dsa-supervised": (45.82, 49.33, 50.50),
}
GOALS = (  # the first row is ahead of the second by so much [dB]
    ("act", "shift-and-add", 0.0),
    ("dsa", "act", 0.2),
    ("dsa", "dsa-supervised", -0.1),
    ("dsa-supervised", "dsa", 0.0),
)


def check(figures):
    """Goal to {T: [difference, its standard error, whether it holds]}.

    Args:
        figures: {row: {T: [dB of each scene]}}.
    """
    return {
        f"{first} - {second} >= {goal:g} dB": {
            t: _compare(figures[first][t], figures[second][t], goal) for t in figures[first]
        }
        for first, second, goal in GOALS
        if first in figures and second in figures
    }


def _compare(first, second, goal):
    difference = np.subtract(first, second)
    difference = difference[np.isfinite(difference)]  # bursts that cannot be registered
    mean, count = float(difference.mean()), len(difference)
    error = float(difference.std(ddof=1)) / count**0.5 if count > 1 else float("nan")
    return [round(mean, 3), round(error, 3), mean >= goal]


def print_tables(results):
    """All of them: for every kind of burst and scale, and the goals."""
    counts, groups = results["set"]["counts"], np.array(results["groups"])
    for name, figures in results["figures"].items():
        parts = {column: {r: _cells(v) for r, v in f.items()} for column, f in figures.items()}
        if name == "one, x2" and counts == [5, 16, 30]:
            parts["published"] = {r: [f"{v:.2f}" for v in p] for r, p in PUBLISHED.items()}
        if name == "several, x2":
            one = results["figures"]["one, x2"]["true"]
            parts = {"one exposure": {r: _cells(v) for r, v in one.items()}} | parts
        first = next(iter(figures.values()))
        print(f"\n### {name} (act told {results['act'][name]['noise']:g} DN)\n")
        print(_table(parts, counts, first))
        by_group = {
            group: {row: _cells(v, groups == group) for row, v in first.items()}
            for group in dict.fromkeys(results["groups"])
        }
        print(f"\nThe first column by place:\n\n{_table(by_group, counts, first)}")
        motion = np.array(results["motion"][name], float)
        if motion.size:
            print(
                f"\nEstimated motion is off by {np.nanmean(motion):.4f} px on average, "
                f"{np.nanpercentile(motion, 95):.4f} px at 95 %; "
                f"{np.isnan(motion).sum()} of {motion.size} frames were rejected, among them "
                f"all of {np.isnan(motion).all(1).sum()} bursts, which that column leaves out."
            )
    for column, goals in results["checks"].items():
        print(f"\nx2, {column} motion:")
        for goal, values in goals.items():
            said = ", ".join(
                f"T={t} {mean:+.2f} +- {error:.2f} {'holds' if holds else 'FAILS'}"
                for t, (mean, error, holds) in values.items()
            )
            print(f"- {goal}: {said}")
    print(f"\nLeft out for want of weights: {'; '.join(results['left out']) or 'none'}")


def _cells(by_count, chosen=slice(None)):
    return [f"{np.nanmean(np.asarray(values)[chosen]):.2f}" for values in by_count.values()]


def _table(parts, counts, rows):
    """Markdown of {heading: {row: a cell for each number of frames}}."""
    heads = [f"{name} T={t}" if t == counts[0] else str(t) for name in parts for t in counts]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = [c for part in parts.values() for c in part.get(row, [""] * len(counts))]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)
