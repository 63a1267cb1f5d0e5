"""One page for one result: before and after, figures, facts. It needs nothing else to be read.

`string.Template` fills it: the page has no logic that a template language would be needed for.
"""

import os
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

import l1bsr_geo
from l1bsr_geo.report.consistency import BandConsistency
from l1bsr_geo.report.correspondence import Correspondence
from l1bsr_geo.report.crops import Crop
from l1bsr_geo.report.drawings import draw_spectrum, draw_vectors
from l1bsr_geo.report.page_facts import say_place, say_run, say_structure
from l1bsr_geo.report.quality import LIMITS, Quality
from l1bsr_geo.report.reference import Scores

_OK = (
    '<svg width="22" height="22" viewBox="0 0 24 24" fill="none" stroke-width="2.4" '
    'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">'
    '<circle cx="12" cy="12" r="10"/><path d="M7.5 12.5l3 3 6-6.5"/></svg>'
)
_LOOK = (
    '<svg width="22" height="22" viewBox="0 0 24 24" fill="none" stroke-width="2.4" '
    'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">'
    '<path d="M12 3l9.5 17h-19z"/><path d="M12 10v4.5M12 17.4v.1"/></svg>'
)


def write_page(
    pair: Correspondence,
    quality: Quality,
    scores: Scores | None,
    crops: Sequence[Crop],
    path: str | os.PathLike[str],
) -> Path:
    """Write the page, whole or not at all.

    Args:
        pair: the result and its input.
        quality: figures without truth.
        scores: figures against a reference.
        crops: pictures for the slider.
        path: HTML file.

    Returns:
        ``path``.
    """
    path = Path(path)
    room = files("l1bsr_geo.report")
    style, script, frame = (
        room.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html")
    )
    result = pair.result
    text = Template(frame).substitute(
        generator=f"l1bsr_geo {l1bsr_geo.__version__}",
        title=escape(result.path.name),
        style=style,
        script=script,
        lead=_lead(pair, quality),
        verdict=_verdict(quality),
        tiles="".join(_tiles(quality)),
        sections="\n".join(_sections(pair, quality, scores, crops)),
        footer=escape(
            "Figures are taken of sample windows drawn with a fixed seed; none of them needs the "
            "truth, and none of them proves that what was added is real."
        ),
    )
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _lead(pair: Correspondence, quality: Quality) -> str:
    tell = pair.result.tell
    made = tell("model") or "an unnamed method"
    frames = tell("frames")
    of = f"{frames} frames of " if frames else ""
    return escape(
        f"{of}{tell('source') or pair.stack.attrs.get('product', 'its source')}, by {made}: "
        f"{quality.scale:.3g} times as many pixels along each axis, bands {', '.join(pair.bands)}."
    )


def _verdict(quality: Quality) -> str:
    if quality.alarms:
        items = "".join(f"<li>{escape(alarm)}</li>" for alarm in quality.alarms)
        count = len(quality.alarms)
        said = "One figure is" if count == 1 else f"{count} figures are"
        return (
            f'<div class="badge look" role="status">{_LOOK}<div><strong>{said} beyond the limit'
            f"</strong><ul>{items}</ul></div></div>"
        )
    if quality.consistency is None:
        why = "; ".join(f"{name}: {why}" for name, why in quality.missing)
        return (
            f'<div class="badge look" role="status">{_LOOK}<div><strong>Not measured</strong>'
            f"{escape(why)}</div></div>"
        )
    return (
        f'<div class="badge" role="status">{_OK}<div><strong>No alarm</strong>The result says what '
        "its input says, stands where it stands, and shows no seam and no grid.</div></div>"
    )


def _tiles(quality: Quality) -> Iterator[str]:
    """The figures that are read first."""
    found = quality.consistency
    if found is not None:
        bias = max((abs(b.bias_percent) for b in found.bands), default=0.0)
        shift = max(float(np.hypot(*b.shift)) for b in found.bands)
        rmse = float(np.mean([b.rmse_percent for b in found.bands]))
        yield _tile("Largest bias", f"{bias:.2f}", "%", "of the input's mean")
        yield _tile("RMSE", f"{rmse:.2f}", "%", "at the input's pixels")
        yield _tile("Largest shift", f"{shift:.3f}", "px", "of the input")
    if quality.band_shifts:
        after = max(b.median_after for b in quality.band_shifts)
        before = max(b.median_before for b in quality.band_shifts)
        yield _tile("Bands apart", f"{after:.2f}", "px", f"{before:.2f} px before")
    if quality.seams is not None:
        yield _tile("Seam index", f"{quality.seams.index:.2f}", "", "1 is no seam")
    if quality.pattern is not None:
        yield _tile("Grid pattern", f"{quality.pattern.percent:.1f}", "%", "of the finest detail")


def _tile(name: str, number: str, unit: str, note: str) -> str:
    unit = f" <small>{escape(unit)}</small>" if unit else ""
    return f"<div><dt>{escape(name)}</dt><dd>{escape(number)}{unit}</dd><p>{escape(note)}</p></div>"


def _sections(
    pair: Correspondence, quality: Quality, scores: Scores | None, crops: Sequence[Crop]
) -> Iterator[str]:
    if crops:
        yield _card("Before and after", _CROPS, _sliders(crops))
    if quality.consistency is not None:
        yield _card("Consistency with the input", _why_consistent(quality), _table(quality))
    if quality.band_shifts:
        yield _card("Band registration", _BANDS, _panels(quality))
    if quality.spectrum is not None:
        drawn = _scroll("Spectrum", draw_spectrum(quality.spectrum))
        yield _card("Spectrum", _SPECTRUM, drawn + _detail_table(pair, quality))
    yield _card("Seams and patterns", _SEAMS, _list_facts(say_structure(quality)))
    if scores is not None:
        yield _card("Against a reference", _why_reference(scores), _score_table(scores))
    yield _card("Place", "", _list_facts(say_place(pair)))
    yield _card("Run", "", _list_facts(say_run(pair)))


_CROPS = (
    "Full-resolution pieces of the places with most detail, both drawn with the same colours. Drag "
    "the line, or focus a picture and use the arrow keys. The input is shown pixel by pixel, its "
    "bands where the instrument put them."
)
_BANDS = (
    "Where each band shows what the reference band shows, block by block, measured by phase "
    "correlation of gradient directions. Mind the keys: before and after are drawn at their own "
    "scales. What is left after registration is mostly the noise of the measurement."
)
_SPECTRUM = (
    "Mean power by frequency. Where the result lies above the interpolated input beyond the "
    "input's Nyquist frequency, it has detail (or noise) that interpolation cannot give."
)
_SEAMS = (
    "Jumps across the lines where tiles meet, over jumps across other lines near by; and what "
    "repeats with the fine pixels of the model, such as a checkerboard."
)


def _why_consistent(quality: Quality) -> str:
    found = quality.consistency
    assert found is not None, "asked where there are figures"
    blur = (
        "is sampled at the input's own pixels as it is"
        if found.mtf == 1
        else f"is blurred (Gaussian, {found.mtf:g} of the input's Nyquist frequency left, "
        f"{'fitted' if found.fitted else 'as told'}) and sampled at the input's own pixels"
    )
    return (
        f"The result {blur}, through the geometry of both, in {found.windows} "
        f"window{'s' if found.windows > 1 else ''} of {found.side} by {found.side} pixels. Of a "
        "good result there is no bias and no shift, and the RMSE is the noise of the input."
    )


def _why_reference(scores: Scores) -> str:
    looked, there = scores.blocks
    resampled = ", resampled onto the result's pixels" if scores.resampled else ""
    return f"Against {scores.reference}{resampled}; {looked} of {there} blocks, {scores.pixels} px."


def _card(title: str, why: str, body: str) -> str:
    name = "h-" + title.lower().replace(" ", "-")
    why = f'<p class="why">{escape(why)}</p>' if why else ""
    return (
        f'<section class="card" aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>'
        f"{why}{body}</section>"
    )


def _sliders(crops: Sequence[Crop]) -> str:
    parts = []
    for number, crop in enumerate(crops, 1):
        x, y = crop.middle
        colours = "grey" if len(crop.bands) == 1 else ", ".join(crop.bands)
        parts.append(
            '<figure><div class="slider">'
            f'<img class="before" src="{crop.before}" alt="Crop {number} of the input" '
            f'draggable="false"><img class="after" src="{crop.after}" '
            f'alt="Crop {number} of the result" draggable="false">'
            '<span class="tag l" aria-hidden="true">before</span>'
            '<span class="tag r" aria-hidden="true">after</span><div class="bar"></div>'
            '<input type="range" min="0" max="100" value="50" step="1" '
            f'aria-label="Crop {number}: how much of the picture shows the input"></div>'
            f"<figcaption>{crop.window.width} &times; {crop.window.height} px around input pixel "
            f"{x:.0f}, {y:.0f} ({escape(colours)})</figcaption></figure>"
        )
    return f'<div class="crops">{"".join(parts)}</div>'


def _table(quality: Quality) -> str:
    found = quality.consistency
    assert found is not None, "asked where there are figures"
    heads = (
        "Band",
        "Mean, DN",
        "Bias, DN",
        "Bias, %",
        "RMSE, DN",
        "RMSE, %",
        "Correlation",
        "Shift, px",
    )
    rows = [_consistency_row(b) for b in found.bands]
    sam = "" if found.sam is None else f"Mean angle between spectra: {found.sam:.3f}°. "
    note = (
        f"{sam}Limits: bias {LIMITS['bias']:g} %, shift {LIMITS['shift']:g} px, correlation "
        f"{LIMITS['correlation']:g}, angle {LIMITS['sam']:g}°."
    )
    return _grid(heads, rows, "The result at the input's pixels, minus the input") + _note(note)


def _consistency_row(b: BandConsistency) -> list[tuple[str, bool]]:
    shift = float(np.hypot(*b.shift))
    return [
        (b.band, False),
        (f"{b.mean:.1f}", False),
        (f"{b.bias:+.3f}", False),
        (f"{b.bias_percent:+.3f}", abs(b.bias_percent) > LIMITS["bias"]),
        (f"{b.rmse:.2f}", False),
        (f"{b.rmse_percent:.2f}", False),
        (f"{b.correlation:.4f}", b.correlation < LIMITS["correlation"]),
        (f"{b.shift[0]:+.3f}, {b.shift[1]:+.3f}", shift > LIMITS["shift"]),
    ]


def _score_table(scores: Scores) -> str:
    heads = (
        "Band",
        "PSNR, dB",
        "SSIM",
        "cPSNR, dB",
        "at shift, px",
        "Bias, DN",
        "RMSE, DN",
        "Peak, DN",
    )
    rows = [
        [
            (text, False)
            for text in (
                b.band,
                f"{b.psnr:.2f}",
                f"{b.ssim:.4f}",
                f"{b.cpsnr:.2f}",
                f"{b.cpsnr_shift[0]:+d}, {b.cpsnr_shift[1]:+d}",
                f"{b.bias:+.3f}",
                f"{b.rmse:.2f}",
                f"{b.peak:g}",
            )
        ]
        for b in scores.bands
    ]
    sam = "" if scores.sam is None else f"Mean angle between spectra: {scores.sam:.3f}°."
    return _grid(heads, rows, "The result against the reference") + _note(sam)


def _detail_table(pair: Correspondence, quality: Quality) -> str:
    found = quality.spectrum
    assert found is not None, "asked where there is one"
    heads = ("Band", "Result, %", "Input interpolated, %", "Ratio")
    rows = [
        [
            (band, False),
            (f"{100 * a:.2f}", False),
            (f"{100 * b:.2f}", False),
            (f"{a / b:.2f}", False),
        ]
        for band, a, b in zip(pair.bands, found.detail, found.detail_cubic, strict=True)
        if b > 0
    ]
    caption = "Power beyond the input's Nyquist frequency over that of the octave below it"
    return _grid(heads, rows, caption)


def _grid(heads: Sequence[str], rows: Sequence[Sequence[tuple[str, bool]]], caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = []
    for (first, _), *rest in rows:
        cells = "".join(
            f"<td{' class=out' if out else ''}>{escape(text)}</td>" for text, out in rest
        )
        body.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return _scroll(
        caption,
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>",
    )


def _scroll(name: str, inner: str) -> str:
    """What is wider than a phone, reachable by keyboard."""
    name = escape(name)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{inner}</div>'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def _panels(quality: Quality) -> str:
    places = np.concatenate([b.place for b in quality.band_shifts])
    (left, top), (right, bottom) = places.min(0), places.max(0)
    extent = float(left), float(top), float(right), float(bottom)
    parts = []
    for band in quality.band_shifts:
        drawn = "".join(
            f"<figure>{draw_vectors(band, extent, which)}</figure>" for which in ("before", "after")
        )
        dx, dy = band.middle_after
        parts.append(
            f"<h3>{escape(band.band)}: {band.median_before:.2f} px before, "
            f'{band.median_after:.3f} px after</h3><div class="panels">{drawn}</div>'
            + _note(f"Left in the median: {dx:+.3f}, {dy:+.3f} px of {len(band.place)} blocks.")
        )
    return f'<div class="columns">{"".join(f"<div>{p}</div>" for p in parts)}</div>'


def _list_facts(facts: Iterator[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    return f'<dl class="facts">{rows}</dl>'
