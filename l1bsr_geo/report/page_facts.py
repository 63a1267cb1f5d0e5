"""Facts of a result for people: pairs of a name and a text."""

import json
import math
from collections.abc import Iterator

import numpy as np
from pyproj import CRS

from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.report.correspondence import Correspondence
from l1bsr_geo.report.quality import Quality

_RUN = (
    *("source", "product", "platform", "detector", "time", "datastrip", "processing_baseline"),
    *("camera", "reference_frame", "frames", "frames_left_out", "exposures"),
    *("model", "model_source", "weights_sha256", "scale", "precision", "tile_size", "tile_halo"),
    *("band_registration", "software", "processed"),
)
_PLACE = ("geometry", "terrain")


def say_structure(quality: Quality) -> Iterator[tuple[str, str]]:
    """Seams, patterns, and what could not be measured."""
    if (s := quality.seams) is not None:
        yield "Jumps on tile lines", f"{s.index:.3f} ± {s.index_error:.3f} times those elsewhere"
        yield (
            "Step along tile lines",
            f"{s.step:.2g} DN, {s.step_significance:.1f} standard errors above chance, "
            f"{s.segments} segments",
        )
    if (p := quality.pattern) is not None:
        yield (
            "Pattern of the fine grid",
            f"{p.amplitude:.2g} DN in {p.band}, {p.percent:.2f} % of the finest detail, "
            f"{p.significance:.1f} times what chance gives",
        )
    for name, why in quality.missing:
        yield name.capitalize(), f"not measured: {why}"


def say_place(pair: Correspondence) -> Iterator[tuple[str, str]]:
    """Where the result is, by which geometry, and how it was refined."""
    result = pair.result
    model, (height, width) = result.grid.model, result.grid.shape
    if isinstance(model, AffineModel):
        crs = CRS.from_user_input(model.crs)
        authority = crs.to_authority()
        yield "CRS", crs.name + (f" ({':'.join(authority)})" if authority else "")
        a, b, _, d, e, *_ = model.transform
        yield "Pixel", f"{math.hypot(a, d):g} by {math.hypot(b, e):g}"
        corners = [model.transform @ (x, y) for x in (0, width) for y in (0, height)]
        (left, bottom), (right, top) = np.min(corners, axis=0), np.max(corners, axis=0)
        yield (
            "Bounds",
            f"{left:.10g}, {bottom:.10g}, {right:.10g}, {top:.10g} (left, bottom, right, top)",
        )
    else:
        how = (
            "RPC"
            if model is not None
            else "control points"
            if result.points is not None
            else "none"
        )
        yield "Sensor geometry", f"told by {how}"
    yield "Size", ", ".join(result.facts.values())
    middle = None
    if model is not None:
        middle = model.localize(width / 2, height / 2)
    elif result.points is not None:
        middle = result.points[:, 2].mean(), result.points[:, 3].mean()
    if middle is not None:
        lon, lat = map(float, middle)
        ns, ew = "south" if lat < 0 else "north", "west" if lon < 0 else "east"
        yield "Middle", f"{abs(lat):.5f}° {ns}, {abs(lon):.5f}° {ew}"
    for name in _PLACE:
        if (told := result.tell(name)) is not None:
            yield name.capitalize(), told
    yield from _refinement(pair)


def _refinement(pair: Correspondence) -> Iterator[tuple[str, str]]:
    tell, numbers = pair.result.tell, pair.result.tell_numbers
    if (reference := tell("refine_reference")) is None:
        yield "Refinement", "none: it stands where the product's own geometry says"
        return
    yield "Refined against", reference
    if (shift := numbers("refine_shift_m")) is not None:
        text = ", ".join(f"{v:+.2f}" for v in shift)
        sure = numbers("refine_uncertainty_m")
        spread = "" if sure is None else f" ± {', '.join(f'{v:.2f}' for v in sure)}"
        yield "Shift that it was moved by", f"{text}{spread} m (east, north)"
    if (matches := tell("refine_matches")) is not None:
        patches = tell("refine_patches")
        yield "Matches", matches + (f" of {patches} patches" if patches else "")


def say_run(pair: Correspondence) -> Iterator[tuple[str, str]]:
    """What made it of what, as the tags tell."""
    for name in _RUN:
        if told := pair.result.tell(name):
            yield name.replace("_", " ").capitalize(), _readable(told)


def _readable(text: str) -> str:
    """JSON lists of reasons as a sentence."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return "; ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else text
