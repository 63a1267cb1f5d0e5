"""Frames of a burst, opened and looked through; those that cannot be used are dropped."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import shapely

from l1bsr_geo.errors import (
    BadInputError,
    GeometryWarning,
    L1bsrGeoError,
    L1bsrGeoWarning,
    MissingInputError,
)
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.model import GeometryModel
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.readers.frame_stack import ARRAYS, Frame, Survey, open_frame, survey
from l1bsr_geo.readers.geotiff import geometry_of
from l1bsr_geo.readers.ground import check_ground
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.readers.pinhole import read_pinhole
from l1bsr_geo.readers.rpc import find_rpc
from l1bsr_geo.readers.skysat_frames import FrameFacts

FrameGeometry: TypeAlias = Literal["auto", "rpc", "pinhole", "none"]

_LEAST_COMMON = 0.01  # of the reference's footprint


@dataclass(frozen=True)
class OpenedFrame:
    """A frame that was opened and looked through.

    Attributes:
        frame: which.
        source: its pixels.
        survey: what they told.
        facts: what frame_index.csv tells.
        position: place in time among the frames that were asked for.
    """

    frame: Frame
    source: PixelSource
    survey: Survey
    facts: FrameFacts
    position: int


def open_frames(
    run: Sequence[Frame], facts: dict[str, FrameFacts], dropped: dict[str, str]
) -> list[OpenedFrame]:
    """The frames that can be read; the others go to ``dropped`` with the reason."""
    opened = []
    for position, frame in enumerate(run):
        try:
            source = open_frame(frame)
            told = facts.get(frame.name, FrameFacts())
            opened.append(OpenedFrame(frame, source, survey(source), told, position))
        except L1bsrGeoError as error:
            dropped[frame.name] = str(error)
    return opened


def drop_unlike(opened: list[OpenedFrame], dropped: dict[str, str]) -> list[OpenedFrame]:
    """Only the frames of the size and type that most have."""
    kinds = [(o.source.shape, o.source.dtype.name) for o in opened]
    if not kinds:
        return []
    most = max(kinds, key=kinds.count)
    for o, kind in zip(opened, kinds, strict=True):
        if kind != most:
            ((h, w), dtype), ((most_h, most_w), most_dtype) = kind, most
            dropped[o.frame.name] = (
                f"{h} x {w} px {dtype}, most are {most_h} x {most_w} px {most_dtype}"
            )
    return [o for o in opened if o.frame.name not in dropped]


def check_left(opened: list[OpenedFrame], path: Path, dropped: dict[str, str]) -> None:
    """Refuse to go on without a frame."""
    if not opened:
        name, reason = next(iter(dropped.items()))
        raise BadInputError(
            f"{path}: none of the {len(dropped)} frames can be used; the first, {name}: {reason}"
        )


def choose_reference(
    opened: list[OpenedFrame], reference: str | int, wanted: Frame, dropped: dict[str, str]
) -> OpenedFrame:
    """The frame asked for; where only "middle" or "first" was, the next best if it is lost."""
    if wanted.name in dropped and reference not in ("middle", "first"):
        raise BadInputError(
            f"--reference {reference}: the frame {wanted.name} cannot be used "
            f"({dropped[wanted.name]}); choose another"
        )
    if reference == "middle":
        return opened[len(opened) // 2]
    return next((o for o in opened if o.frame == wanted), opened[0])


def locate(opened: OpenedFrame, geometry: FrameGeometry) -> GeometryModel | None:
    """The geometry of a frame; a damaged one is as good as none, and says so."""
    frame, shape = opened.frame, opened.source.shape
    if geometry == "none" or frame.part is not None or frame.path.suffix.lower() in ARRAYS:
        if geometry in ("rpc", "pinhole"):
            raise MissingInputError(f"{frame.path} is a stack, which has no {geometry} geometry")
        return None
    pinhole = frame.path.with_name(frame.path.stem + "_pinhole.json")
    model: GeometryModel | None = None
    try:
        if geometry != "pinhole":
            model = find_rpc(frame.path)
        if model is None and geometry != "rpc" and pinhole.is_file():
            model = read_pinhole(pinhole, shape)
        if model is None and geometry == "auto" and frame.level == "raster":
            with open_raster(frame.path) as raster:
                model = geometry_of(raster)
        if model is not None:
            check_ground(model, Window(0, 0, *shape[::-1]), f"{frame.path}: its geometry")
    except BadInputError as error:
        model = None
        warnings.warn(
            GeometryWarning(f"{error}; the frame goes without its geometry"), stacklevel=4
        )
    if model is None and geometry != "auto":
        raise MissingInputError(f"{frame.path} has no {geometry} geometry; leave the choice open")
    return model


def drop_elsewhere(
    opened: list[OpenedFrame],
    reference: OpenedFrame,
    grids: dict[str, GeoGrid],
    dropped: dict[str, str],
) -> list[OpenedFrame]:
    """Only the frames that see some of the ground of the reference, as far as geometry tells."""
    around = _outline(reference, grids)
    if around is None:
        return opened
    for o in opened:
        outline = None if o is reference else _outline(o, grids, around)
        if outline is None:
            continue
        common = shapely.intersection(outline, around).area / around.area
        if common < _LEAST_COMMON:
            dropped[o.frame.name] = (
                f"it shares {100 * common:.1f} % of the ground of the reference, "
                f"{reference.frame.name}"
            )
    return [o for o in opened if o.frame.name not in dropped]


def _outline(
    opened: OpenedFrame, grids: dict[str, GeoGrid], near: shapely.Geometry | None = None
) -> shapely.Geometry | None:
    """The footprint by the model, else by frame_index.csv, on the same side of the date line."""
    grid = grids[opened.frame.name]
    outline = opened.facts.outline if grid.model is None else grid.footprint(0.0, 1)
    if outline is None:
        return None
    outline = outline.convex_hull  # valid, whatever the corners are
    if near is None:
        return outline
    turns = round((near.centroid.x - outline.centroid.x) / 360)
    return shapely.transform(outline, lambda points: points + np.array([360.0 * turns, 0.0]))


def warn_of_dropped(path: Path, asked: int, dropped: dict[str, str]) -> None:
    """Say which frames were lost, and that one frame is no burst."""
    left = asked - len(dropped)
    if dropped:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(dropped.items())[:5])
        more = f"; and {len(dropped) - 5} more" if len(dropped) > 5 else ""
        warnings.warn(
            L1bsrGeoWarning(
                f"{path}: {len(dropped)} of {asked} frames are dropped, {left} stay ({listed}"
                f"{more})"
            ),
            stacklevel=3,
        )
    if left == 1:
        warnings.warn(
            L1bsrGeoWarning(
                f"{path}: one frame only; super-resolution needs several of the same ground, so "
                "this is no more than an interpolation"
            ),
            stacklevel=3,
        )
