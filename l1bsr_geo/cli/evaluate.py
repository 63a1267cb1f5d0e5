"""`l1bsr-geo evaluate`: what a result is worth."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from l1bsr_geo.cli.console import plain
from l1bsr_geo.cli.options import DemOption, GeoidOption, GippOption, OverwriteOption

if TYPE_CHECKING:
    from l1bsr_geo.pipelines.evaluating import Evaluation
    from l1bsr_geo.report.quality import Quality
    from l1bsr_geo.report.reference import Scores


def evaluate_result(
    result: Annotated[Path, typer.Argument(help="Raster that this program wrote.")],
    source: Annotated[
        Path | None, typer.Option(help="Product, burst or raster that it was made of.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Raster of the same ground that is believed.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML page to write, too.")] = None,
    dem: DemOption = None,
    geoid: GeoidOption = None,
    gipp: GippOption = None,
    mtf: Annotated[
        float | None,
        typer.Option(help="Blur between result and input, at the input's Nyquist; fitted."),
    ] = None,
    peak: Annotated[
        float | None, typer.Option(help="Of PSNR and SSIM [DN]; the reference's range.")
    ] = None,
    windows: Annotated[int, typer.Option(help="Sample windows, at most.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of their choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Say how true a result is to its input, and to a reference."""
    from l1bsr_geo.pipelines.evaluating import evaluate

    found = evaluate(
        result,
        source=source,
        reference=reference,
        report=report,
        dem=dem,
        geoid=geoid,
        gipp=gipp,
        mtf=mtf,
        peak=peak,
        windows=windows,
        seed=seed,
        overwrite=overwrite,
    )
    if as_json:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
        return
    _show(found, Console(highlight=False, emoji=False))


def _show(found: "Evaluation", console: Console) -> None:
    if found.quality is not None:
        _show_quality(found.quality, console)
    if found.scores is not None:
        _show_scores(found.scores, console)
    for alarm in found.alarms:
        console.print(f"[yellow]look:[/yellow] {plain(alarm)}", soft_wrap=True)
    if found.quality is not None and not found.alarms:
        console.print("[green]no alarm[/green]")


def _show_quality(quality: "Quality", console: Console) -> None:
    found = quality.consistency
    if found is not None:
        how = "fitted" if found.fitted else "given"
        table = Table(
            title=f"against the input: {found.windows} windows of {found.side} px, "
            f"MTF {found.mtf:g} at its Nyquist ({how})"
        )
        _add_columns(table, "mean DN", "bias DN", "RMSE DN", "RMSE %", "corr.", "shift px (dx, dy)")
        for b in found.bands:
            table.add_row(
                escape(b.band),
                f"{b.mean:.1f}",
                f"{b.bias:+.3f}",
                f"{b.rmse:.2f}",
                f"{b.rmse_percent:.2f}",
                f"{b.correlation:.4f}",
                f"{b.shift[0]:+.3f}, {b.shift[1]:+.3f}",
            )
        console.print(table)
    table = Table(show_header=False)
    for name, value in _figures(quality):
        table.add_row(name, escape(value))
    console.print(table)


def _add_columns(table: Table, *names: str) -> None:
    table.add_column("band", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)


def _figures(quality: "Quality") -> list[tuple[str, str]]:
    """Name and text of what is one number."""
    rows = [("pixels of the result to one of the input", f"{quality.scale:.3f}")]
    if quality.consistency is not None and quality.consistency.sam is not None:
        rows.append(("spectral angle to the input", f"{quality.consistency.sam:.3f} degrees"))
    for band in quality.band_shifts:
        text = f"{band.median_before:.2f} px before, {band.median_after:.3f} px after"
        rows.append((f"{band.band} from the reference band", text))
    if quality.spectrum is not None:
        ours, cubic = quality.spectrum.detail, quality.spectrum.detail_cubic
        text = f"{100 * sum(ours) / len(ours):.2f} %"
        text += f" (input interpolated: {100 * sum(cubic) / len(cubic):.2f} %)"
        rows.append(("power beyond the input's Nyquist", text))
    if (p := quality.pattern) is not None:
        text = f"{p.amplitude:.2g} DN, {p.percent:.2f} % of the finest detail"
        rows.append(("pattern of the fine grid", f"{text} ({p.significance:.1f} sigma)"))
    if (s := quality.seams) is not None:
        rows.append(("jumps on tile lines", f"{s.index:.3f} +- {s.index_error:.3f} of elsewhere"))
        text = f"{s.step:.2g} DN ({s.step_significance:.1f} sigma, {s.segments} segments)"
        rows.append(("step along tile lines", text))
    return rows + [(name, f"not measured: {why}") for name, why in quality.missing]


def _show_scores(scores: "Scores", console: Console) -> None:
    on = "resampled onto the result" if scores.resampled else "on the same pixels"
    looked, there = scores.blocks
    table = Table(title=plain(f"against {scores.reference}, {on}; {looked} of {there} blocks"))
    names = ("PSNR dB", "SSIM", "cPSNR dB", "at shift px", "bias DN", "RMSE DN", "peak")
    _add_columns(table, *names)
    for b in scores.bands:
        dx, dy = b.cpsnr_shift
        table.add_row(
            escape(b.band),
            f"{b.psnr:.2f}",
            f"{b.ssim:.4f}",
            f"{b.cpsnr:.2f}",
            f"{dx:+d}, {dy:+d}",
            f"{b.bias:+.3f}",
            f"{b.rmse:.2f}",
            f"{b.peak:g}",
        )
    console.print(table)
    if scores.sam is not None:
        console.print(f"spectral angle to the reference: {scores.sam:.3f} degrees")
