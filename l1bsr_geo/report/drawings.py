"""Plots as SVG: curves of power, vectors of displacement. Colours come from the page's style."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, isfinite, log10

import numpy as np

from l1bsr_geo.report.band_shifts import BandShifts
from l1bsr_geo.report.spectrum import Spectrum

_WIDTH, _HEIGHT = 760, 340  # of the spectrum
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 28, 44
_DECADES = 8  # below the highest power that are shown, at most
_PANEL, _LARGEST_PANEL = 280, 250  # width of a panel of vectors, and its largest height


def draw_spectrum(found: Spectrum) -> str:
    """Power over frequency; what is beyond the input's Nyquist frequency is shaded."""
    frequency = found.frequency[1:]  # the mean was taken out of the first ring
    below = [
        v if f <= 0.5 else float("nan") for f, v in zip(frequency, found.source[1:], strict=True)
    ]
    curves = (("input", below), ("cubic", found.cubic[1:]), ("ours", found.result[1:]))
    values = [v for _, curve in curves for v in curve if isfinite(v) and v > 0]
    high = ceil(log10(max(values)))
    low = max(floor(log10(min(values))), high - _DECADES)
    end = found.frequency[-1] + found.frequency[0]

    def place(f: float, power: float) -> tuple[float, float]:
        x = _LEFT + f / end * (_WIDTH - _LEFT - _RIGHT)
        share = (high - max(log10(power), low)) / (high - low)
        return x, _TOP + share * (_HEIGHT - _TOP - _BOTTOM)

    nyquist, floor_y = place(0.5, 10.0**low)
    right = _WIDTH - _RIGHT
    parts = [
        f'<rect class="beyond" x="{nyquist:.1f}" y="{_TOP}" width="{max(right - nyquist, 0):.1f}" '
        f'height="{floor_y - _TOP:.1f}"/>'
    ]
    step = max(1, (high - low) // 4)
    for decade in range(low, high + 1, step):
        _, y = place(0, 10.0**decade)
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"10{_raised(decade)}", "end"))
    for f in np.arange(0, end + 1e-9, 0.25 if end < 1.6 else 0.5):
        x, _ = place(float(f), 1)
        parts.append(_text(x, floor_y + 18, f"{f:g}", "middle"))
    parts += [
        f'<path class="mark" d="M{nyquist:.1f} {_TOP}V{floor_y:.1f}"/>',
        _text(nyquist + 8, _TOP + 16, "beyond the input's Nyquist frequency", "start", "strong"),
        _text((_LEFT + right) / 2, _HEIGHT - 6, "cycles per pixel of the input", "middle"),
        _text(_LEFT - 44, 14, "power, DN² px²", "start"),
    ]
    for name, curve in curves:
        at = [place(f, v) for f, v in zip(frequency, curve, strict=True) if isfinite(v) and v > 0]
        parts.append(f'<polyline class="{name}" points="{_points(at)}"/>')
    parts += _legend(right)
    label = (
        "Radial power spectra of the result, of the input and of the input interpolated, over "
        "frequency"
    )
    return _svg(_WIDTH, _HEIGHT, label, parts)


def draw_vectors(band: BandShifts, extent: tuple[float, float, float, float], which: str) -> str:
    """A displacement at each block's place, drawn larger so that it can be seen.

    Args:
        band: displacements.
        extent: left, top, right, bottom of what all panels show [px of the input].
        which: "before" or "after".
    """
    left, top, right, bottom = extent
    wide, tall = max(right - left, 1.0), max(bottom - top, 1.0)
    scale = min((_PANEL - 90) / wide, (_LARGEST_PANEL - 114) / tall)
    height = tall * scale + 114
    shifts = np.asarray(band.before if which == "before" else band.after)
    key = _round_up(float(np.percentile(np.hypot(*shifts.T), 90)))
    longest = 26.0
    parts = [
        f'<rect class="frame" x="8" y="8" width="{_PANEL - 16}" height="{height - 40:.1f}" rx="6"/>'
    ]
    start_x, start_y = (_PANEL - wide * scale) / 2, 8 + (height - 40 - tall * scale) / 2
    for (x, y), (dx, dy) in zip(band.place, shifts, strict=True):
        u, v = start_x + (x - left) * scale, start_y + (y - top) * scale
        size = min(1.0, 1.5 * key / max(float(np.hypot(dx, dy)), 1e-9)) * longest / key
        parts.append(
            f'<line class="v {which}" x1="{u:.1f}" y1="{v:.1f}" '
            f'x2="{u + dx * size:.1f}" y2="{v + dy * size:.1f}"/>'
            f'<circle class="dot {which}" cx="{u:.1f}" cy="{v:.1f}" r="2.2"/>'
        )
    y = height - 12
    parts += [
        f'<line class="v {which}" x1="12" x2="{12 + longest}" y1="{y - 4:.1f}" y2="{y - 4:.1f}"/>',
        _text(12 + longest + 6, y, f"{key:g} px", "start"),
        _text(_PANEL - 10, y, which, "end", "strong"),
    ]
    label = f"Displacement of {band.band} from the reference band, {which}, {len(shifts)} blocks"
    return _svg(_PANEL, round(height), label, parts)


def _legend(right: float) -> list[str]:
    parts = []
    names = (("ours", "result"), ("cubic", "input, interpolated"), ("input", "input"))
    for i, (name, text) in enumerate(names):
        y = _TOP + 40 + 20 * i
        parts.append(
            f'<line class="{name}" x1="{right - 160}" x2="{right - 132}" y1="{y}" y2="{y}"/>'
        )
        parts.append(_text(right - 124, y + 4, text, "start"))
    return parts


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten, at least 0.01."""
    value = max(value, 0.01)
    power = 10.0 ** floor(log10(value))
    return float(next(n * power for n in (1, 2, 5, 10) if value <= n * power * 1.0001))


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _points(at: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in at)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
