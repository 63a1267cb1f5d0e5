"""How far a result can be trusted, pixel by pixel: a second image beside it."""

import hashlib
import json
import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadOptionError, L1bsrGeoWarning
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.pixels import GeoImage, Scene, Views
from l1bsr_geo.models.calibration import Calibration, find_calibration
from l1bsr_geo.models.ensemble import Ensemble, Method, can_leave_out, group_frames
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.shipped import made_views
from l1bsr_geo.pipelines.job import Job, Progress
from l1bsr_geo.pipelines.stages import LazyResult, say_made_of, say_model, write_result
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import DEFAULT_SIZE, TilePlan

log = logging.getLogger(__name__)

_MARK = "uncertainty_made_of"  # the tag that tells of which run a file is
_NOTHING = 0.01  # [DN] a spread as small as this is of rounding


def map_uncertainty(
    model: Model, scene: Scene, plan: TilePlan, frames: int = 1
) -> tuple[GeoImage, dict[str, str]]:
    """The standard deviation of a result's error, lazily.

    Bursts are restored without some of their frames in turn, anything else turned and mirrored
    (``models.ensemble``): up to eight restorations for each tile.

    Args:
        model: what restores, at the precision that it does.
        scene: what is restored.
        plan: its tiles.
        frames: of the scene, where it is a burst.

    Returns:
        Standard deviations [DN], float32, NaN where there is no data, on the grid of the result;
        and how they came to be, as tags.

    Raises:
        BadOptionError: all members of the ensemble are the same, whatever the scene.
    """
    method: Method = "left-out" if can_leave_out(model.spec, frames) else "turned"
    _refuse_the_same(model, method)
    known = _find_calibration(model, scene, method)
    if method == "turned":  # members differ by little: half the bits would be all that is seen
        model = model.at_precision("fp32")
    spread = model.spread(Ensemble(method, known))
    # features of all frames are held at once
    size = plan.size if method == "turned" else min(plan.size, DEFAULT_SIZE)
    tiles = TilePlan.for_model(spread.spec, plan.shape, size=size)
    image = map_tiles(spread, _Differences(scene), tiles, dtype="float32")
    what, trusted = "standard deviation of the error", str(known)
    if known is None:
        what, trusted = "spread", "not calibrated: the raw spread"
        warnings.warn(
            f"the uncertainty of {model.spec.name} is not calibrated: it is the raw spread of "
            f"{_say(method, frames)}, which is not the error",
            L1bsrGeoWarning,
            stacklevel=4,
        )
    return image, {
        **say_model(spread, tiles),
        "model": model.spec.name,
        "uncertainty": f"{what} of each pixel [DN]",
        "uncertainty_method": f"spread of {_say(method, frames)}",
        "uncertainty_calibration": trusted,
    }


def write_uncertainty(job: Job, result: LazyResult, progress: Progress | None) -> None:
    """The uncertainty of a result, where it was asked for, in a file of its own.

    To be written before the result, whose file tells that all is done. It takes longest, so a run
    that is taken up again (``job.resume``) leaves one of the same job as it is.

    Raises:
        OutputExistsError: another file is there, and may not be replaced.
    """
    told = result.uncertainty
    if told is None or job.uncertainty is None:
        return
    own, path = replace(job, output=job.uncertainty), Path(job.uncertainty)
    made_of = json.dumps(say_made_of(own, told.facts), sort_keys=True)
    mark = hashlib.sha256(made_of.encode()).hexdigest()
    if job.resume and path.exists() and _mark_of(path) == mark:
        log.info("%s is there already", path)
        return
    write_result(own, told.image, told.terrain, {**told.facts, _MARK: mark}, progress)


def _mark_of(path: Path) -> str | None:
    try:
        with open_raster(path) as raster:
            mark: str | None = raster.tags().get(_MARK)
            return mark
    except RasterioError:
        return None  # no raster at all


@dataclass(frozen=True)
class _Differences:
    """A scene of whose pixels only differences count: an offset of its DN has no part in them."""

    scene: Scene

    @property
    def grid(self) -> GeoGrid:
        return self.scene.grid

    @property
    def bands(self) -> tuple[str, ...]:
        return self.scene.bands

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    @property
    def add_offset(self) -> tuple[float, ...]:
        return (0.0,) * len(self.scene.bands)

    @property
    def nodata(self) -> float:
        return float("nan")

    def read(self, window: Window) -> Views:
        return self.scene.read(window)


def _find_calibration(model: Model, scene: Scene, method: Method) -> Calibration | None:
    """What is known of a model for the DN of a sensor; fractions are in units of their own."""
    spec = model.spec
    if scene.dtype.kind not in "iu" or (model.identity.own and not model.weights_sha256):
        return None  # of one's own, the name tells nothing
    return find_calibration(spec.name, spec.scale, model.weights_sha256, method)


def _refuse_the_same(model: Model, method: Method) -> None:
    """Some restorers give the same whichever way an image is turned: tried on a made-up one."""
    views, flow = made_views(model.spec)
    if views.shape[1] < model.spread(Ensemble(method)).spec.frames[0]:
        return
    spread: npt.NDArray[np.float32] = model.spread(Ensemble(method)).restore(views, flow)
    quarter = spread.shape[-1] // 4
    if np.median(spread[..., quarter:-quarter, quarter:-quarter]) > _NOTHING:
        return
    how = "with fewer frames" if method == "left-out" else "of turned images"
    raise BadOptionError(
        f"--uncertainty: {model.spec.name} gives the same {how}, so that a spread tells nothing of "
        "its error; take a learned model, or a burst of three frames or more"
    )


def _say(method: Method, frames: int) -> str:
    if method == "turned":
        return "restorations of turned and mirrored views"
    groups = group_frames(frames)
    most = max(map(len, groups))
    which = "one of its frames" if most == 1 else f"up to {most} of its frames"
    return f"{len(groups)} restorations of the burst without {which} each (jackknife)"
