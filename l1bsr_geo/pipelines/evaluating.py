"""What a result is worth: figures from the written file, its tags, its source, a reference."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l1bsr_geo.errors import BadOptionError, L1bsrGeoWarning, MissingInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.pipelines.job import Job, PathLike
from l1bsr_geo.pipelines.stages import read_terrain
from l1bsr_geo.readers.inputs import read_input
from l1bsr_geo.readers.skysat import read_burst
from l1bsr_geo.report.correspondence import Correspondence
from l1bsr_geo.report.crops import cut_crops
from l1bsr_geo.report.page import write_page
from l1bsr_geo.report.patches import Patch, choose_patches
from l1bsr_geo.report.quality import Quality, measure_quality
from l1bsr_geo.report.reference import Scores, compare_with_reference
from l1bsr_geo.report.result import Result

_WINDOWS = 12  # sample windows, at most
_CONSTANT = "constant "  # how the tag of an assumed height begins
_OF_GRIDS = "that of the location grids"


@dataclass(frozen=True)
class Evaluation:
    """All figures of a result.

    Attributes:
        result: the file.
        quality: against its source; None without one.
        scores: against a reference; None without one.
    """

    result: Result
    quality: Quality | None = None
    scores: Scores | None = None

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is beyond its limit, in plain sentences."""
        return () if self.quality is None else self.quality.alarms

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not finite is None."""
        quality, scores = (None if v is None else asdict(v) for v in (self.quality, self.scores))
        return {
            "result": self.result.path.name,
            "tags": dict(self.result.tags),
            "quality": _plain(quality),
            "reference": _plain(scores),
            "alarms": list(self.alarms),
        }


def evaluate(
    result: PathLike,
    *,
    source: PathLike | None = None,
    reference: PathLike | None = None,
    report: PathLike | None = None,
    dem: PathLike | None = None,
    geoid: PathLike | None = None,
    gipp: PathLike | None = None,
    mtf: float | None = None,
    peak: float | None = None,
    windows: int = _WINDOWS,
    seed: int = 0,
    overwrite: bool = False,
) -> Evaluation:
    """Judge a written result against the source that it was made of, a reference, or both.

    What is not given here (detector, geometry, reference frame, an assumed height) is read from the
    result's tags.

    Args:
        result: raster that this package wrote, or any of the same ground.
        source: product, burst or raster that it was made of.
        reference: raster of the same ground that is believed.
        report: HTML page to write; needs the source.
        dem: terrain that the result was drawn on, where it was.
        geoid: of it.
        gipp: folder of GIPP files for the instrument model.
        mtf: what a Gaussian leaves of the input's Nyquist frequency before the result is sampled at
            the input's pixels, up to 1; that under which they agree best where None.
        peak: of PSNR and SSIM [DN]; the reference's range where None.
        windows: sample windows, at most.
        seed: of their choice.
        overwrite: replace an existing report.

    Raises:
        L1bsrGeoError: what a user can cause and mend; nothing is written then.
    """
    _check_options(source, reference, report, mtf, peak, windows)
    if report is not None:
        known = [p for p in (result, source, reference, dem, geoid, gipp) if p is not None]
        check_destination(Path(report), known, overwrite=overwrite)
    opened = Result.open(result)
    if "uncertainty_method" in opened.tags:
        raise BadOptionError(
            f"{result} holds the uncertainty of a result, not one; give the file that it was "
            "written with"
        )
    pair = quality = scores = None
    patches: list[Patch] = []
    if source is not None:
        job = _job_of(opened, source, dem, geoid, gipp)
        pair = _find(job, opened)
        patches = choose_patches(pair, windows, seed)
        quality = measure_quality(pair, mtf=mtf, patches=patches, windows=windows, seed=seed)
    if reference is not None:
        scores = compare_with_reference(opened, reference, peak=peak, seed=seed)
    if report is not None and pair is not None and quality is not None:
        write_page(pair, quality, scores, cut_crops(pair, patches), report)
    return Evaluation(opened, quality, scores)


def add_report(job: Job, written: Path) -> None:
    """The page of a result, where the job wants one.

    Args:
        job: what was asked.
        written: the result.
    """
    if job.report is not None:
        opened = Result.open(written)
        pair = _find(job, opened)
        patches = choose_patches(pair, _WINDOWS)
        quality = measure_quality(pair, patches=patches)
        write_page(pair, quality, None, cut_crops(pair, patches), job.report)


def _check_options(
    source: PathLike | None,
    reference: PathLike | None,
    report: PathLike | None,
    mtf: float | None,
    peak: float | None,
    windows: int,
) -> None:
    if source is None and reference is None:
        raise BadOptionError("nothing to compare with; give --source, --reference or both")
    if report is not None and source is None:
        raise BadOptionError("--report shows a result beside its source; give --source, too")
    if mtf is not None and not 0 < mtf <= 1:
        raise BadOptionError(f"--mtf {mtf}: must be above 0 and at most 1")
    if peak is not None and not 0 < peak < math.inf:
        raise BadOptionError(f"--peak {peak}: must be above 0")
    if windows < 1:
        raise BadOptionError(f"--windows {windows}: at least 1 is needed")


def _job_of(
    result: Result,
    source: PathLike,
    dem: PathLike | None,
    geoid: PathLike | None,
    gipp: PathLike | None,
) -> Job:
    """What the result's tags tell of the job that wrote it."""
    told, options = result.tell, dict[str, Any](dem=dem, geoid=geoid, gipp=gipp)
    if (detector := told("detector")) is not None and detector.isdecimal():
        options["detector"] = int(detector)
    if (geometry := told("geometry")) in ("grids", "model", "footprint"):
        options["geometry"] = geometry
    terrain = told("terrain") or ""
    if terrain.startswith(_CONSTANT):
        options["height"] = _number(terrain.removeprefix(_CONSTANT).split()[0])
    elif terrain not in ("", _OF_GRIDS) and dem is None:
        raise BadOptionError(
            f"{result.path} was drawn on the terrain of {terrain}; give the same with --dem (and "
            "--geoid)"
        )
    return Job(source=source, output=result.path, camera=told("camera"), **options)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _find(job: Job, result: Result) -> Correspondence:
    """The source as the result was made of it, and where they meet."""
    if not Path(job.source).exists():
        raise MissingInputError(f"{job.source} is not there; a product, burst or raster is needed")
    stack = _read_source(job, result)
    grid = stack.grids[stack.reference]
    flat = job.dem is None or grid.model is None or isinstance(grid.model, AffineModel)
    # that the height is assumed was said when the result was made
    terrain = ConstantElevation(job.height) if flat else read_terrain(job, grid)
    return Correspondence.find(stack, result, terrain)


def _read_source(job: Job, result: Result) -> BandStack:
    """Bands, or the reference frame of a burst as its only band."""
    frame = result.tell("reference_frame")
    if frame is None:
        bands = [b for b in result.bands if b[:1] == "B"] or None
        return read_input(
            job.source,
            sensor=job.sensor,
            detector=job.detector,
            bands=job.bands or bands,
            geometry=_geometry(job, result),
            gipp=job.gipp,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", L1bsrGeoWarning)  # of one frame alone, which is meant
        burst = read_burst(job.source, job.camera, frame, 1, "first")
    return BandStack(
        sources={burst.band: burst.sources[0]},
        grids={burst.band: burst.grids[0]},
        reference=burst.band,
        nodata=burst.nodata,
        attrs=burst.attrs,
    )


def _geometry(job: Job, result: Result) -> Any:
    """That of the tags, since "auto" may have chosen."""
    told = result.tell("geometry")
    return told if told in ("grids", "model", "footprint") else job.geometry


def _plain(value: Any) -> Any:
    """Numbers that JSON holds."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
