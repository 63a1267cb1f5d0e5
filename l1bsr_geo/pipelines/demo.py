"""The main job on an input that it makes."""

from pathlib import Path
from typing import Any

from l1bsr_geo.pipelines.bands import orthorectify_bands
from l1bsr_geo.pipelines.job import PathLike, Progress
from l1bsr_geo.pipelines.super_resolution import super_resolve
from l1bsr_geo.report.quicklook import write_quicklook
from l1bsr_geo.simulation.demo import make_demo_product


def run_demo(
    folder: PathLike, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Path]:
    """Make a product, super-resolve it and leave a COG and a before/after picture.

    Returns:
        What was made: "product", "before", "result", "quicklook" and where.
    """
    folder = Path(folder)
    made = make_demo_product(folder, seed)
    options: dict[str, Any] = {"dem": made.dem, "aoi": made.lonlat, "overwrite": True}
    result = super_resolve(made.product, folder / "demo_5m.tif", progress=progress, **options)
    before = orthorectify_bands(made.product, folder / "demo_10m.tif", **options)
    quicklook = folder / "demo_before_after.png"
    write_quicklook(before, result, quicklook)
    return {"product": made.product, "before": before, "result": result, "quicklook": quicklook}
