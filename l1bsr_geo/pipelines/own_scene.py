"""What a scene that is to be restored teaches: the frames of a burst, the overlaps of detectors."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    L1bsrGeoError,
    L1bsrGeoWarning,
)
from l1bsr_geo.geometry.elevation import AnyElevation, ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bands import BandScene
from l1bsr_geo.images.bursts import BurstScene
from l1bsr_geo.pipelines.job import Job
from l1bsr_geo.pipelines.stages import find_window, read_terrain
from l1bsr_geo.readers.sentinel2_l1b import read_detector_overlap
from l1bsr_geo.readers.sentinel2_product import Product, open_product
from l1bsr_geo.readers.sentinel2_zarr import eopf_detectors, is_eopf
from l1bsr_geo.readers.skysat import read_burst
from l1bsr_geo.registration.frames import align_frames
from l1bsr_geo.training.finetune import HeldBack
from l1bsr_geo.training.own_overlaps import Overlap, Stacks, register_overlap
from l1bsr_geo.training.scene_bursts import BurstCrops, part_burst
from l1bsr_geo.training.scene_overlaps import OverlapCrops, part_overlaps

log = logging.getLogger(__name__)

_MARGIN = 32  # [px] around an area: what restoring its border needs
_LINES = 4608  # of an overlap, at most: two granules teach what more would


def read_frames(job: Job) -> BurstScene:
    """The frames that are to be restored, as far as they prove their place.

    Args:
        job: what is read.

    Raises:
        L1bsrGeoError: as ``read_burst`` and ``align_frames``.
    """
    burst = read_burst(job.source, job.camera, job.start, job.frames, job.reference)
    if len(burst) == 1:
        return BurstScene(burst)
    flow = align_frames(burst, elevation=_read_terrain(job, burst.grids[0]))
    for t, why in flow.rejected.items():
        log.info("frame %s is left out: %s", burst.attrs["frames"][t], why)
    return BurstScene(burst.select(flow.kept), flow.select(flow.kept))


def part_frames(job: Job, scene: BurstScene) -> tuple[BurstCrops, HeldBack]:
    """What a burst teaches, and what is held back of it.

    Args:
        job: may name an area.
        scene: of ``read_frames``.

    Raises:
        BadInputError: too few frames, or too small an area.
    """
    area = find_window(job, scene.grid, _read_terrain(job, scene.grid), _MARGIN)
    return part_burst(scene, area)


def part_product(job: Job) -> tuple[OverlapCrops, HeldBack]:
    """What the overlaps of a Sentinel-2 L1B product teach, and what is held back of them.

    Args:
        job: may choose a detector, whose neighbours count, and name an area.

    Raises:
        BadInputError: it is no such product, or detectors with ground in common are missing.
        BadOptionError: the area touches none of them.

    Warns:
        L1bsrGeoWarning: of overlaps in which a band could not be matched.
    """
    overlaps = []
    for name, stacks in _read_overlaps(job):
        first, other = Overlap.load(stacks, 1).views  # decoded once
        terrain = _read_terrain(job, first.grid)
        try:
            flow = register_overlap((first.stack, other.stack), terrain)
        except BadInputError as error:  # cloud or sea in one is no reason to refuse the others
            warnings.warn(f"{name} is left out: {error}", L1bsrGeoWarning, stacklevel=3)
            continue
        overlaps.append(((first.stack, other.stack), flow))
    if not overlaps:
        raise BadInputError(
            f"{job.source}: in none of its overlaps could all bands be matched, so there is "
            "nothing to learn from"
        )
    return part_overlaps(overlaps)


def _read_overlaps(job: Job) -> Iterator[tuple[str, Stacks]]:
    """What two neighbouring detectors see: of the area, and not more lines than are of use."""
    path = Path(job.source)
    eopf = is_eopf(path)
    if job.sensor == "raster" or not (eopf or path.is_dir() or path.suffix in (".zip", ".xml")):
        raise BadInputError(
            f"{path} is neither a burst nor an L1B product; a network learns from many frames, or "
            "from what two detectors see"
        )
    product: Product | Path = path if eopf else open_product(path)
    there = product.detectors if isinstance(product, Product) else eopf_detectors(path)
    pairs = [(d, d + 1) for d in sorted(there) if d + 1 in there]
    if job.detector is not None:
        pairs = [pair for pair in pairs if job.detector in pair]
    if not pairs:
        alone = f"detector {job.detector}" if job.detector else f"{path}"
        raise BadInputError(
            f"{alone} has no overlap with a neighbouring detector (there are "
            f"{', '.join(map(str, there))}); a network learns from what two detectors see"
        )
    missed: list[L1bsrGeoError] = []
    for left, right in pairs:
        overlap = read_detector_overlap(
            product, left, right, geometry=job.geometry, gipp=job.gipp, height=job.height
        )
        first = BandScene(overlap.left)
        try:
            area = find_window(job, first.grid, _read_terrain(job, first.grid), _MARGIN)
        except BadOptionError as error:  # of this overlap, but perhaps not of the next
            missed.append(error)
            continue
        top = area.row_off + max(area.height - _LINES, 0) // 2
        window = Window(0, top, first.grid.shape[1], min(area.height, _LINES))
        yield (
            f"detectors {left} and {right}",
            (overlap.left.crop(window), overlap.right.crop(window)),
        )
    if len(missed) == len(pairs):
        raise missed[0]


def _read_terrain(job: Job, grid: GeoGrid) -> AnyElevation:
    """As for the result, but no warning where it is assumed: images correct the motion."""
    return ConstantElevation(job.height) if job.dem is None else read_terrain(job, grid)
