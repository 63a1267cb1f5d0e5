"""SkySat bursts: which there are, and one of them as a Burst.

Values are DN as on disk, zero means no light. SkySat frames fill the whole detector: there is no
value for no data unless the file names one, and a DN of 0 is a dark pixel. A DN of 4095, the most
that the 12-bit converter gives, counts as saturated.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from l1bsr_geo.errors import BadOptionError, L1bsrGeoWarning
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.readers.frame_stack import ARRAYS, Frame
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.readers.skysat_checks import (
    FrameGeometry,
    OpenedFrame,
    check_left,
    choose_reference,
    drop_elsewhere,
    drop_unlike,
    locate,
    open_frames,
    warn_of_dropped,
)
from l1bsr_geo.readers.skysat_frames import FRAME_INDEX, parse_frame, read_frame_index
from l1bsr_geo.readers.skysat_runs import (
    choose_frames,
    find_frames,
    find_runs,
    number_of,
    parse_reference,
)

_SATURATED = 4095.0  # 12 bits
_UNLIKE = 1.1  # ratio of mean DN from which exposures are hardly equal


@dataclass(frozen=True)
class BurstEntry:
    """A run of frames without a gap, as `list_bursts` finds it.

    Attributes:
        satellite: such as "sc00108" or "ssc1"; "" for plain frames.
        camera: such as "c2" or "d3"; "" for plain frames.
        frames: names in order of time.
        indices: running numbers of the names; positions where the names have none.
        times: UTC of the names; empty where they have none.
    """

    satellite: str
    camera: str
    frames: tuple[str, ...]
    indices: tuple[int, ...]
    times: tuple[datetime, ...] = ()

    @property
    def period(self) -> float | None:
        """Median time between frames [s]."""
        if len(self.times) < 2:
            return None
        return float(np.median(np.diff([t.timestamp() for t in self.times])))


def is_burst(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a SkySat frame, a folder of them, or a frame_index.csv; opens no image."""
    path = Path(path)
    if path.is_dir():
        return (path / FRAME_INDEX).is_file() or bool(find_frames(path))
    return path.name == FRAME_INDEX or parse_frame(path) is not None


def list_bursts(path: str | os.PathLike[str]) -> list[BurstEntry]:
    """The bursts that a path holds, by satellite, camera and time; no SkySat frame is opened.

    Args:
        path: as for `read_burst`.

    Raises:
        MissingInputError: nothing is there, or no frames.
        BadInputError: a stack that cannot be opened.
    """
    return [
        BurstEntry(
            run[0].satellite,
            run[0].camera,
            tuple(f.name for f in run),
            tuple(number_of(f, i) for i, f in enumerate(run)),
            tuple(f.time for f in run if f.time is not None),
        )
        for run in find_runs(Path(path))
    ]


def read_burst(
    path: str | os.PathLike[str],
    camera: str | int | None = None,
    start: int | str | None = None,
    frames: int = 15,
    reference: str | int = "middle",
    *,
    geometry: FrameGeometry = "auto",
    exposures: Sequence[float] | None = None,
) -> Burst:
    """Consecutive frames of one camera, the reference first, then the others in order of time.

    Every frame is looked through once, since a damaged one would spoil the whole result; what stays
    is unread. Frames that cannot be used are dropped with a warning and listed with the reason in
    ``attrs["dropped"]``: unreadable ones, those of another size or type than most, and those whose
    footprint does not touch the reference's.

    The geometry of a frame is its RPC (a file beside it, else its tags), else its pinhole camera,
    else, of a plain raster, the map transform, else none. Exposures are ``integration_time_ms`` of
    frame_index.csv, else equal, with a warning.

    Args:
        path: a folder of frames: an all-frames collect, a video, L1A scenes, or any images in the
            order of their names; or one of their frames; a frame_index.csv; a stack: TIFF of many
            bands or pages, or ``.npy`` (T, H, W).
        camera: ``"c2"``, ``"d2"`` or 2; needed where there are several.
        start: first frame: its running number, or its name. By default the first of the first run
            that is long enough.
        frames: how many, at most.
        reference: ``"middle"``, ``"first"``, or which of the frames, from 0, in order of time.
        geometry: ``"rpc"`` or ``"pinhole"`` insists on one, ``"none"`` looks for none.
        exposures: exposure times of the frames in order of time, instead of those found.

    Raises:
        MissingInputError: nothing is there, no frames, or not the geometry that was insisted on.
        BadOptionError: several cameras and none chosen; a start or reference that is not there.
        BadInputError: no frame can be used, or not the reference that was asked for.
    """
    path = Path(path)
    if frames < 1:
        raise BadOptionError(f"--frames {frames}: at least 1 frame is needed")
    run = choose_frames(find_runs(path), path, camera, start, frames)
    at = parse_reference(reference, len(run))
    folder = run[0].path.parent
    facts = read_frame_index(folder) or read_frame_index(folder.parent)
    dropped: dict[str, str] = {}
    opened = drop_unlike(open_frames(run, facts, dropped), dropped)
    check_left(opened, path, dropped)
    chosen = choose_reference(opened, reference, run[at], dropped)
    grids = {o.frame.name: GeoGrid(o.source.shape, locate(o, geometry)) for o in opened}
    opened = drop_elsewhere(opened, chosen, grids, dropped)
    warn_of_dropped(path, len(run), dropped)
    ordered = [chosen, *(o for o in opened if o is not chosen)]
    times, how = _find_exposures(ordered, exposures, run, path)
    return Burst(
        sources=tuple(o.source for o in ordered),
        grids=tuple(grids[o.frame.name] for o in ordered),
        exposures=times,
        times=tuple(o.frame.time for o in ordered if o.frame.time is not None),
        nodata=_nodata_of(chosen.frame),
        saturated=_saturated_of(ordered),
        attrs=_describe(path, ordered, grids, dropped) | {"exposures": how},
    )


def _find_exposures(
    ordered: list[OpenedFrame], given: Sequence[float] | None, run: Sequence[Frame], path: Path
) -> tuple[tuple[float, ...], str]:
    """Exposure times in the order of the burst, and where they are from."""
    if given is not None:
        if len(given) != len(run) or not all(np.isfinite(e) and e > 0 for e in given):
            raise BadOptionError(
                f"{len(given)} exposures were given for {len(run)} frames; one positive number for "
                "each was expected"
            )
        return tuple(float(given[o.position]) for o in ordered), "given"
    found = [o.facts.exposure for o in ordered]
    known = [e for e in found if e is not None]
    if len(known) == len(ordered):
        return tuple(known), "integration_time_ms"
    assumed = float(np.median(known)) if known else 1.0
    if len(ordered) > 1:
        means = [o.survey.mean for o in ordered if o.facts.exposure is None]
        unlike = max(means) / min(means) if min(means) > 0 else 1.0
        hint = (
            f"; but their mean DN differ by a factor {unlike:.2f}, as if they were not"
            if unlike > _UNLIKE
            else ""
        )
        warnings.warn(
            L1bsrGeoWarning(
                f"{path}: no exposure time of {len(ordered) - len(known)} of {len(ordered)} frames "
                f"(integration_time_ms of {FRAME_INDEX}); taken as equal{hint}"
            ),
            stacklevel=3,
        )
    times = tuple(assumed if e is None else e for e in found)
    return times, "integration_time_ms, some assumed" if known else "assumed equal"


def _nodata_of(frame: Frame) -> float | None:
    if frame.path.suffix.lower() in ARRAYS:
        return None
    with open_raster(frame.path) as raster:
        return None if raster.nodata is None else float(raster.nodata)


def _saturated_of(ordered: list[OpenedFrame]) -> float | None:
    """The largest value there can be: of the bits that the table tells, else of SkySat's 12."""
    first = ordered[0]
    if first.frame.level == "raster" or first.source.dtype.kind == "f":
        return None
    most = float(np.iinfo(first.source.dtype).max)
    told = 2.0 ** (first.facts.bit_depth or 16) - 1
    likely = min(told, _SATURATED, most)
    return likely if max(o.survey.maximum for o in ordered) <= likely else min(told, most)


def _describe(
    path: Path,
    ordered: list[OpenedFrame],
    grids: dict[str, GeoGrid],
    dropped: dict[str, str],
) -> dict[str, Any]:
    first = ordered[0]
    model = grids[first.frame.name].model
    facts = {
        "product": path.parent.name if path.name == FRAME_INDEX else path.stem,
        "level": first.frame.level,
        "platform": first.frame.satellite,
        "camera": first.frame.camera,
        "time": first.frame.time.isoformat() if first.frame.time else None,
        "geometry": "none" if model is None else type(model).__name__.removesuffix("Model").lower(),
        "gsd": first.facts.gsd,
        "satellite_azimuth": first.facts.azimuth,
        "satellite_elevation": first.facts.elevation,
    }
    return {name: value for name, value in facts.items() if value not in (None, "")} | {
        "frames": tuple(o.frame.name for o in ordered),
        "order": tuple(o.position for o in ordered),
        "dropped": dropped,
    }
