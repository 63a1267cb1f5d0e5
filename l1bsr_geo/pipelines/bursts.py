"""SkySat bursts, and any frames of the same ground: many frames to one sharper image."""

import json
import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from l1bsr_geo.errors import L1bsrGeoWarning
from l1bsr_geo.geometry.elevation import AnyElevation
from l1bsr_geo.georef.kernels import Kernel
from l1bsr_geo.images.bursts import Burst, BurstScene
from l1bsr_geo.images.flow import BurstFlow
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.models.coverage import FrameCount, NoiseGain
from l1bsr_geo.models.registry import Model
from l1bsr_geo.pipelines.job import Job, Progress
from l1bsr_geo.pipelines.refining import refine_burst
from l1bsr_geo.pipelines.stages import (
    LazyResult,
    draw_on_map,
    find_window,
    read_terrain,
    say,
    say_model,
    write_result,
)
from l1bsr_geo.pipelines.uncertainty import map_uncertainty, write_uncertainty
from l1bsr_geo.readers.rpc import rpcs_of
from l1bsr_geo.readers.skysat import read_burst
from l1bsr_geo.registration.frames import align_frames
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import TilePlan
from l1bsr_geo.tiling.precision import settle_precision

log = logging.getLogger(__name__)


def restore_burst(job: Job, model: Model, tile: int | None, progress: Progress | None) -> Path:
    """From the frames of a burst to one image on the grid of its reference frame, made finer.

    Args:
        job: what is read and written.
        model: what restores.
        tile: largest core of a tile [px of a frame].
        progress: called with blocks done and blocks in all.
    """
    burst = read_burst(job.source, job.camera, job.start, job.frames, job.reference)
    result = restore_lazily(job, burst, model, tile)
    write_uncertainty(job, result, progress)
    written = write_result(job, result.image, result.terrain, result.facts, progress)
    if job.layers is not None:
        layers = result.map_layers(job)
        write_result(replace(job, output=job.layers), layers, result.terrain, result.facts, None)
    return written


@dataclass(frozen=True)
class LazyBurst(LazyResult):
    """A burst that is to be restored.

    Attributes:
        scene: its frames and their motion.
        plan: its tiles.
    """

    scene: BurstScene
    plan: TilePlan

    def map_layers(self, job: Job) -> GeoImage:
        """Frame counts and noise gain, as two bands on the result's grid."""
        maps = []
        for restorer in (FrameCount(self.plan.scale), NoiseGain(self.plan.scale)):
            same = TilePlan.for_model(restorer.spec, self.plan.shape, size=self.plan.size)
            model = Model.from_restorer(restorer, "cpu")
            layer = map_tiles(model, self.scene, same, dtype="float32")
            maps.append(layer.pixels.assign_coords(band=[restorer.spec.name]))
        pixels = xr.concat(maps, "band", combine_attrs="drop")
        image = GeoImage(pixels, layer.grid, layer.valid)
        return _place(job, image, self.terrain, "bilinear")


def restore_lazily(job: Job, burst: Burst, model: Model, tile: int | None) -> LazyBurst:
    """`restore_burst` before anything is computed but the motion of the frames.

    Args:
        job: what is drawn; nothing is read or written by it.
        burst: the frames.
        model: what restores.
        tile: largest core of a tile [px of a frame].
    """
    terrain = read_terrain(job, burst.grids[0])
    burst, refined = refine_burst(job, burst, terrain)
    burst, flow, facts = _align(burst, terrain)
    facts |= refined
    scene = BurstScene(burst, flow)
    plan = TilePlan.for_model(model.spec, scene.grid.shape, size=tile)
    model = settle_precision(model, scene, plan)
    image = map_tiles(model, scene, plan, dtype=job.dtype)
    facts |= say_model(model, plan) | {"aligned": model.spec.aligned}
    known = ("product", "platform", "camera", "time", "geometry", "exposures")
    facts = say(burst.attrs, *known) | facts
    result = LazyBurst(_place(job, image, terrain), terrain, facts, scene, plan)
    if job.uncertainty is None:
        return result
    spread, how = map_uncertainty(model, scene, plan, len(burst))
    return result.with_uncertainty(_place(job, spread, terrain, "bilinear"), how)


def _place(job: Job, image: GeoImage, terrain: AnyElevation, kernel: Kernel = "cubic") -> GeoImage:
    """On the map, or in the frame's own pixels."""
    if job.ortho and image.grid.model is not None:
        return draw_on_map(job, image, terrain, None, kernel)
    return _keep_sensor_geometry(job, image, terrain)


def _align(burst: Burst, terrain: AnyElevation) -> tuple[Burst, BurstFlow | None, dict[str, str]]:
    """The frames that can be used and their motion, and what became of the others."""
    names = burst.attrs["frames"]
    facts = {"reference_frame": str(names[0])}
    dropped = dict(burst.attrs.get("dropped", {}))
    flow = None
    if len(burst) > 1:
        flow = align_frames(burst, elevation=terrain)
        rejected = {str(names[t]): why for t, why in flow.rejected.items()}
        for name, why in rejected.items():
            warnings.warn(f"frame {name} is left out: {why}", L1bsrGeoWarning, stacklevel=4)
        dropped |= rejected
        burst, flow = burst.select(flow.kept), flow.select(flow.kept)
    log.info("%d frames used, %d left out", len(burst), len(dropped))
    facts["frames"] = str(len(burst))
    if dropped:
        facts["frames_left_out"] = json.dumps(dropped)
    return burst, flow, facts


def _keep_sensor_geometry(job: Job, image: GeoImage, terrain: AnyElevation) -> GeoImage:
    """In the frame's own pixels, cut to the area of interest, with RPCs that any GIS reads."""
    if job.area is not None:
        window = find_window(job, image.grid, terrain, 0)
        rows, columns = window.slices
        valid = None if image.valid is None else image.valid[rows, columns]
        image = GeoImage(image.pixels[:, rows, columns], image.grid.crop(window), valid)
    rpcs = rpcs_of(image.grid)
    return image if rpcs is None else replace(image, pixels=image.pixels.assign_attrs(rpcs=rpcs))
