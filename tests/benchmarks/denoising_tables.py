"""What bench_denoising prints: its table, beside the published one, and which goals hold."""

import statistics

PUBLISHED = {  # [dB] on Derf: supervised, MF2F online, MF2F offline
    "gauss20": (36.97, 37.32, 37.48),
    "gauss40": (34.00, 34.24, 34.27),
    "poisson8": (35.30, 35.57, 35.68),
    "box": (35.42, 35.50, 35.60),
}
"""Dewil et al., MF2F, WACV 2021, as shown in the talk Self-supervised image restoration (2023)."""
_WHERE = {"supervised": 0, "mf2f-online": 1, "mf2f-offline": 2}

AHEAD, NEAR = 1.0, 0.3  # [dB] of untuned, and to supervised


def average(noises):
    """{noise: {row: (PSNR, SSIM)}}, means over the frames, which all rows have."""
    return {
        noise: {
            row: (statistics.mean(told["psnr"]), statistics.mean(told["ssim"]))
            for row, told in measured["rows"].items()
        }
        for noise, measured in noises.items()
    }


def print_table(noises, rows):
    """Markdown: PSNR / SSIM (seconds), published PSNR."""
    means = average(noises)
    frames = {
        len(told["psnr"]) for measured in noises.values() for told in measured["rows"].values()
    }
    print(f"mean over frames {', '.join(f'0 to {n - 1}' for n in frames)}; published: Derf\n")
    print("| PSNR [dB] / SSIM, seconds, published | " + " | ".join(noises) + " |")
    print("|---|" + "---|" * len(noises))
    for row in rows:
        cells = []
        for noise, measured in noises.items():
            if row not in measured["rows"]:
                cells.append("-")
                continue
            db, ssim = means[noise][row]
            cell = f"{db:.2f} / {ssim:.4f}, {measured['rows'][row]['seconds']:.0f} s"
            if row in _WHERE:
                cell += f", {PUBLISHED[noise][_WHERE[row]]:.2f}"
            cells.append(cell)
        print(f"| {row} | " + " | ".join(cells) + " |")
    for noise, measured in noises.items():
        told = ", ".join(f"{name}: {s} s" for name, s in measured["motion_seconds"].items())
        print(f"motion of {noise}: {told or 'not needed'}")


def list_goals(noises):
    """(goal with its figures, whether it holds) of what was measured."""
    goals = []
    for noise, rows in average(noises).items():
        db = {row: figures[0] for row, figures in rows.items()}
        tuned = ("mf2f-online", "mf2f-offline")

        def compare(better, worse, least, words, noise=noise, db=db):
            if {better, worse} <= db.keys():
                gap = db[better] - db[worse]
                text = f"{noise}: {better} {db[better]:.2f} {words} {worse} {db[worse]:.2f}"
                goals.append((text, gap >= least))

        if noise in ("poisson8", "box"):
            compare("mf2f-offline", "mf2f-online", 0, "is no worse than")
            compare("mf2f-online", "fastdvdnet", AHEAD, f"is {AHEAD:g} dB better than")
        for row in tuned:
            compare(row, row.replace("mf2f", "f2f"), 0, "is better than")
            if noise == "gauss20":
                compare(row, "supervised", -NEAR, f"is within {NEAR:g} dB of")
    return goals


def print_goals(noises):
    """Plain words, a line to a goal."""
    print()
    for text, holds in list_goals(noises):
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}")
