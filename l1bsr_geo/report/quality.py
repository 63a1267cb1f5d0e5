"""What can be said of a result without knowing the truth.

Figures are taken of sample windows, at most 12 of 128 px of the input and 24 segments of tile lines
by default, drawn with a fixed seed from all over the common area: memory does not grow with the
scene. What they are and which limits an alarm has is said with each.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.report.band_shifts import BandShifts, measure_band_shifts
from l1bsr_geo.report.consistency import Consistency, measure_consistency
from l1bsr_geo.report.correspondence import Correspondence
from l1bsr_geo.report.patches import Patch, choose_patches, fit_mtf
from l1bsr_geo.report.result import Result
from l1bsr_geo.report.seams import Seams, measure_seams
from l1bsr_geo.report.spectrum import Pattern, Spectrum, find_pattern, measure_spectrum

LIMITS = {
    "shift": 0.05,  # [px of the input]
    "bias": 1.0,  # [% of the mean]
    "sam": 2.0,  # [degrees]
    "correlation": 0.98,
    "bands": 0.2,  # [px of the input] median displacement; what matching can tell
    "seam_index": 1.05,
    "pattern": 3.0,  # [% of the finest detail]
    "significance": 5.0,  # [standard errors] below this a pattern may be chance
    "seam_significance": 3.0,  # [standard errors] the same of seams; three segments reach it
}
"""From where a figure is an alarm."""


@dataclass(frozen=True)
class Quality:
    """Figures of a result against its input; None where one cannot be taken, with the reason.

    Attributes:
        scale: pixels of the result to a pixel of the input, as measured.
        consistency: values and places at the input's pixels.
        band_shifts: how bands lie on the reference, before and after.
        spectrum: power by frequency.
        pattern: of the model's fine grid.
        seams: where tiles meet.
        missing: figure to the reason why it is None.
    """

    scale: float
    consistency: Consistency | None = None
    band_shifts: tuple[BandShifts, ...] = ()
    spectrum: Spectrum | None = None
    pattern: Pattern | None = None
    seams: Seams | None = None
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is beyond its limit, in plain sentences."""
        return (*_of_values(self), *_of_structure(self))


def measure_quality(
    pair: Correspondence,
    *,
    mtf: float | None = None,
    patches: Sequence[Patch] | None = None,
    windows: int = 12,
    segments: int = 24,
    seed: int = 0,
) -> Quality:
    """Take all figures that need no truth.

    Args:
        pair: a result and its input.
        mtf: what the blur between the two leaves of the input's Nyquist frequency; that under which
            they agree best where None.
        patches: sample windows; `choose_patches` draws them where None.
        windows: how many, at most.
        segments: pieces of tile lines, at most.
        seed: of their choice.
    """
    scale = pair.scale
    if scale < 0.95:
        why = f"the result is coarser than its input ({1 / scale:.2g} times)"
        return Quality(scale, missing=(("consistency", why),))
    patches = choose_patches(pair, windows, seed) if patches is None else patches
    if not patches:
        why = "no window of 32 px that both images fill"
        return Quality(scale, missing=(("consistency", why),))
    at = pair.bands.index(pair.stack.reference) if pair.stack.reference in pair.bands else 0
    blur = fit_mtf(patches, at) if mtf is None else mtf
    of_model, missing = _fine_pixels(pair.result), []
    spectrum = measure_spectrum(pair, patches)
    if spectrum is None:
        missing.append(("spectrum", "no window of the result without holes"))
    core, seams = _tile_core(pair.result), None
    if core is not None:
        read = _window(pair.result, "source_window")
        seams = measure_seams(pair, core, of_model, read, count=segments, seed=seed)
    if seams is None:
        why = "the tags tell no tiles" if core is None else "one tile, or none that meet in it"
        missing.append(("seams", why))
    return Quality(
        scale,
        measure_consistency(patches, pair.bands, blur, fitted=mtf is None),
        measure_band_shifts(pair, patches),
        spectrum,
        find_pattern(pair, patches, of_model),
        seams,
        tuple(missing),
    )


def _fine_pixels(result: Result) -> int:
    """Fine pixels of the model to a pixel of its input."""
    told = result.tell("scale") or ""
    return int(told) if told.isdecimal() and int(told) > 0 else 1


def _tile_core(result: Result) -> tuple[int, int] | None:
    core = result.tell_numbers("tile_core")
    return None if core is None or len(core) != 2 or min(core) < 1 else (int(core[0]), int(core[1]))


def _window(result: Result, name: str) -> Window | None:
    told = result.tell_numbers(name)
    return None if told is None or len(told) != 4 else Window(*(int(n) for n in told))


def _of_values(quality: Quality) -> Iterator[str]:
    found = quality.consistency
    if found is None:
        return
    for band in found.bands:
        shift, error = math.hypot(*band.shift), math.hypot(*band.shift_error)
        if shift > LIMITS["shift"] + 2 * error:
            yield f"{band.band} lies {shift:.3f} px of the input beside it"
        if abs(band.bias_percent) > LIMITS["bias"]:
            way = "brighter" if band.bias_percent > 0 else "darker"
            yield f"{band.band} is {abs(band.bias_percent):.2f} % {way} than the input"
        if band.correlation < LIMITS["correlation"]:
            yield f"{band.band} differs from the input (correlation {band.correlation:.3f})"
    if found.sam is not None and found.sam > LIMITS["sam"]:
        yield f"spectra differ from the input's by {found.sam:.2f} degrees"


def _of_structure(quality: Quality) -> Iterator[str]:
    for band in quality.band_shifts:
        off = math.hypot(*band.middle_after)
        if off > LIMITS["bands"] + 3 * band.error_after:
            yield f"{band.band} lies {off:.2f} px of the input beside the reference band"
    pattern, seams, sure = quality.pattern, quality.seams, LIMITS["significance"]
    if pattern is not None and pattern.significance > sure and pattern.percent > LIMITS["pattern"]:
        yield (
            f"{pattern.band} has a pattern of the fine grid: {pattern.amplitude:.2g} DN, "
            f"{pattern.percent:.1f} % of the finest detail"
        )
    if seams is not None:
        index = (seams.index - 1) / max(seams.index_error, 1e-9)
        if seams.index > LIMITS["seam_index"] and index > sure:
            yield f"jumps on tile lines are {seams.index:.2f} times those elsewhere"
        elif seams.step_significance > LIMITS["seam_significance"]:
            yield f"a step of {seams.step:.2g} DN runs along tile lines"
