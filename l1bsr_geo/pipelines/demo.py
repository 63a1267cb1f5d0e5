"""The main job on an input that it makes."""

from pathlib import Path
from typing import Any

from l1bsr_geo.pipelines.bands import orthorectify_bands
from l1bsr_geo.pipelines.job import PathLike, Progress
from l1bsr_geo.pipelines.super_resolution import super_resolve
from l1bsr_geo.report.quicklook import write_quicklook
from l1bsr_geo.simulation.demo import make_demo_product
from l1bsr_geo.simulation.scenes import Bounds

_SHARE = 0.4  # of each side of the product; all of it would take six times as long


def run_demo(
    folder: PathLike, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Path]:
    """Make a product, super-resolve its middle, and leave a COG, a report and a picture.

    Returns:
        What was made and where: "product", "dem", "before" and "result" (rasters), "report" (HTML,
        with figures), "quicklook" (before and after).
    """
    folder = Path(folder)
    made = make_demo_product(folder, seed)
    options: dict[str, Any] = {"dem": made.dem, "aoi": _middle(made.lonlat), "overwrite": True}
    report = folder / "demo_report.html"
    result = super_resolve(
        made.product, folder / "demo_5m.tif", report=report, progress=progress, **options
    )
    before = orthorectify_bands(made.product, folder / "demo_10m.tif", **options)
    quicklook = folder / "demo_before_after.png"
    write_quicklook(before, result, quicklook)
    return {
        "product": made.product,
        "dem": made.dem,
        "before": before,
        "result": result,
        "report": report,
        "quicklook": quicklook,
    }


def _middle(bounds: Bounds) -> Bounds:
    west, south, east, north = bounds
    x, y = _SHARE / 2 * (east - west), _SHARE / 2 * (north - south)
    return (
        (west + east) / 2 - x,
        (south + north) / 2 - y,
        (west + east) / 2 + x,
        (south + north) / 2 + y,
    )
