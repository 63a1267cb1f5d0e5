"""Runs of frames without a gap, and which of their frames make a burst."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.readers.frame_stack import ARRAYS, RASTERS, Frame, list_plain_folder, list_stack
from l1bsr_geo.readers.skysat_frames import FRAME_INDEX, parse_frame

_NEVER = datetime.min.replace(tzinfo=UTC)
_GAP = 1.5  # median periods; a longer pause ends a burst


def find_runs(path: Path) -> list[list[Frame]]:
    """Frames in runs without gaps, whatever the path is."""
    if not path.exists():
        raise MissingInputError(f"{path} is not there; a folder or stack of frames was expected")
    if path.name == FRAME_INDEX:
        path = path.parent
    if not path.is_dir():
        if path.suffix.lower() not in RASTERS + ARRAYS:
            raise BadInputError(
                f"{path} is no burst; give a folder of frames, or a stack (.tif, .npy)"
            )
        named = parse_frame(path)
        return [[named]] if named is not None else [list_stack(path)]
    if found := find_frames(path):
        return split_bursts(found)
    plain = list_plain_folder(path)
    if not plain:
        raise MissingInputError(
            f"{path} holds no frames: no SkySat names such as 1301717367.65046573_sc00108_c2_PAN_"
            "i0000000000.tif, and no .tif or .npy at all"
        )
    return [plain]


def choose_frames(
    runs: list[list[Frame]],
    path: Path,
    camera: str | int | None,
    start: int | str | None,
    count: int,
) -> list[Frame]:
    """At most ``count`` consecutive frames of one camera."""
    if camera is not None:
        digit = str(camera).lower().removeprefix("c").removeprefix("d")
        of_camera = [run for run in runs if run[0].camera[1:] == digit]
        if not of_camera:
            there = ", ".join(sorted({run[0].camera for run in runs} - {""})) or "no named camera"
            raise BadOptionError(f"--camera {camera}: {path} holds {there}")
        runs = of_camera
    if start is not None:
        runs = _start_at(runs, start, path)
    sensors = sorted({f"{run[0].satellite} {run[0].camera}".strip() for run in runs})
    if len(sensors) > 1:
        raise BadOptionError(
            f"{path} holds bursts of {', '.join(sensors)}; choose one with --camera, or give a "
            "folder of one satellite"
        )
    enough = [run for run in runs if len(run) >= count]
    run = enough[0] if enough else max(runs, key=len)
    return run[:count]


def _start_at(runs: list[list[Frame]], start: int | str, path: Path) -> list[list[Frame]]:
    """The runs from the frame of a name or number on."""
    text = Path(str(start)).name
    found = []
    for run in runs:
        for i, frame in enumerate(run):
            number = str(number_of(frame, i))
            if text in (frame.name, frame.path.name) or str(start) == number:
                found.append(run[i:])
    if not found:
        spans = [f"{number_of(r[0], 0)} to {number_of(r[-1], len(r) - 1)}" for r in runs]
        raise BadOptionError(
            f"--start {start}: no such frame in {path}; it holds frames {'; '.join(spans[:8])}"
        )
    return found


def number_of(frame: Frame, position: int) -> int:
    """The running number of a frame's name, else its place in the run."""
    return position if frame.index is None else frame.index


def parse_reference(reference: str | int, count: int) -> int:
    """Which of ``count`` frames in order of time."""
    if reference == "middle":
        return count // 2
    if reference == "first":
        return 0
    try:
        at = int(reference)
    except ValueError:
        raise BadOptionError(
            f"--reference {reference}: middle, first, or the number of a frame was expected"
        ) from None
    if not 0 <= at < count:
        raise BadOptionError(
            f"--reference {reference}: there are {count} frames, numbered 0 to {count - 1}"
        )
    return at


def find_frames(folder: Path) -> list[Frame]:
    """SkySat's frames in a folder, or one folder further down."""
    for pattern in ("*", "*/*"):
        found = [f for path in folder.glob(pattern) if (f := parse_frame(path)) is not None]
        if found:
            return found
    return []


def split_bursts(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Runs of frames of one camera, in order of time, without a gap in number or time."""
    cameras: dict[tuple[str, str, str], list[Frame]] = {}
    for frame in frames:
        cameras.setdefault((frame.satellite, frame.camera, frame.level), []).append(frame)
    bursts = []
    for _, listed in sorted(cameras.items()):
        ordered = sorted(listed, key=lambda f: (f.time or _NEVER, f.index or 0, f.name))
        bursts += _split(ordered)
    return bursts


def _split(frames: Sequence[Frame]) -> list[list[Frame]]:
    steps = [_seconds(a, b) for a, b in pairwise(frames)]
    # names of scenes (cameras d1 to d3) tell whole seconds, which are no measure of a period
    timed = [s for s in steps if s and frames[0].camera.startswith("c")]
    longest = _GAP * median(timed) if timed else float("inf")
    bursts = [[frames[0]]]
    for (a, b), step in zip(pairwise(frames), steps, strict=True):
        follows = a.index is None or b.index is None or b.index == a.index + 1
        if step <= longest and follows:
            bursts[-1].append(b)
        else:
            bursts.append([b])
    return bursts


def _seconds(a: Frame, b: Frame) -> float:
    return (b.time - a.time).total_seconds() if a.time and b.time else 0.0
