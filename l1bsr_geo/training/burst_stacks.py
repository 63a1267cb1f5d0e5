"""Stacks of frames on disk to learn from: the layout of the authors' public data sets."""

import json
import re
import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning, MissingInputError
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.readers.frame_stack import list_stack, open_frame
from l1bsr_geo.training.own_bursts import BurstSource, RegisteredBurst

Split: TypeAlias = Literal["train", "val", "test"]

SPLITS = {"train": range(2000), "val": range(2000, 2200), "test": range(2200, 2500)}
"""Numbers of HDR-DSP's sequences. Source: Nguyen et al. 2022, its data; the last 160 are unused."""


@dataclass(frozen=True)
class BurstStacks(BurstSource):
    """Stacks of frames as numpy arrays: the layout of the data of DSA-Self and HDR-DSP.

    A file ``NAME.npy`` holds one burst (T, H, W) uint16, registered to whole pixels or less well.
    Exposures are in ``NAME_exposures.npy`` (T,), or in ``NAME.json`` as ``{"exposures": [...]}``,
    in any one unit; without either they are alike. (How the authors' files tell them is not known
    here; this is our own form.)

    Attributes:
        folder: of the stacks, or of folders ``train``, ``val`` and ``test`` of them.
        size: [px] of the crops.
        frames: least and most frames drawn, the reference included.
        split: which folder; where there are no such folders, which numbers, as the last digits of
            the names (`SPLITS`, HDR-DSP's). None takes all stacks, in folders as well.
        saturated: [DN] frames with a pixel beyond are left out, None keeps all. HDR-DSP takes 2600
            for SkySat-13; the stacks of DSA-Self reach 4751.
        turned: whether samples are turned and mirrored by chance.

    Source: Nguyen et al. 2021 (DSA-Self) and 2022 (HDR-DSP), their released data.
    """

    folder: str | Path
    size: int = 64
    frames: tuple[int, int] = (4, 15)
    split: Split | None = None
    saturated: float | None = 2600.0
    turned: bool = True

    def __post_init__(self) -> None:
        self._check()

    @cached_property
    def bursts(self) -> list[RegisteredBurst]:
        """All stacks, unopened.

        Raises:
            MissingInputError: there is no stack.
            BadInputError: a file is no stack of frames of at least the size asked for.
        """
        return [self._index(path) for path in _find_stacks(Path(self.folder), self.split)]

    def _index(self, path: Path) -> RegisteredBurst:
        frames = list_stack(path)
        shape = open_frame(frames[0]).shape
        if len(frames) < 2 or min(shape) < self.size:
            raise BadInputError(
                f"{path} has {len(frames)} frames of {shape[0]} x {shape[1]}; a stack (T, H, W) of "
                f"at least 2 frames of {self.size} x {self.size} was expected"
            )
        return RegisteredBurst(str(path), len(frames), partial(_open_stack, path, self.saturated))


def _find_stacks(folder: Path, split: Split | None) -> list[Path]:
    if split not in (None, *SPLITS):
        raise BadOptionError(f"split is {split}; {', '.join(SPLITS)} or none was expected")
    parted = split is not None and (folder / split).is_dir()
    where = folder / split if parted and split is not None else folder
    if not where.is_dir():
        raise MissingInputError(f"{where} is no folder; stacks of frames NAME.npy were expected in")
    pattern = "**/*.npy" if split is None else "*.npy"
    found = sorted(p for p in where.glob(pattern) if not p.stem.endswith("_exposures"))
    if split is not None and not parted:
        found = [path for path in found if _number_of(path) in SPLITS[split]]
    if not found:
        wanted = "" if split is None else f" of the {split} split"
        raise MissingInputError(
            f"{where} holds no stacks{wanted}; NAME.npy (T, H, W) were expected, by split in "
            "folders train, val, test or numbered"
        )
    return found


def _number_of(path: Path) -> int:
    digits = re.search(r"(\d+)\D*$", path.stem)
    if digits is None:
        raise BadInputError(
            f"{path} has no number in its name, which would tell its split; put stacks into "
            "folders train, val and test, or take all with no split"
        )
    return int(digits[1])


def _open_stack(path: Path, saturated: float | None) -> Burst:
    """A stack as a burst, without its saturated frames.

    Warns:
        L1bsrGeoWarning: hardly a frame is left.
    """
    frames = list_stack(path)
    exposures = _read_exposures(path, len(frames))
    sources = [open_frame(frame) for frame in frames]
    tops = [float(source.read(GeoGrid(source.shape).window).max()) for source in sources]
    kept = [t for t, top in enumerate(tops) if saturated is None or top <= saturated]
    if len(kept) < 2:  # nothing can be held out and seen as well
        warnings.warn(
            f"{path} is left out: {len(tops) - len(kept)} of its {len(tops)} frames reach beyond "
            f"{saturated:g} DN, where they count as saturated",
            L1bsrGeoWarning,
            stacklevel=2,
        )
        kept = kept or [0]
    return Burst(
        sources=tuple(sources[t] for t in kept),
        grids=tuple(GeoGrid(sources[t].shape) for t in kept),
        exposures=tuple(exposures[t] for t in kept),
        attrs={"frames": tuple(frames[t].name for t in kept)},
    )


def _read_exposures(path: Path, count: int) -> list[float]:
    array, text = path.with_name(f"{path.stem}_exposures.npy"), path.with_suffix(".json")
    told = array if array.is_file() else text
    if not told.is_file():
        return [1.0] * count
    try:
        found = np.load(told, allow_pickle=False) if told is array else json.loads(told.read_text())
        values = found if told is array else found["exposures"]
        exposures = [float(v) for v in values]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{told} tells no exposures ({type(error).__name__}: {error}); {count} numbers were "
            "expected"
        ) from error
    if len(exposures) != count or not all(np.isfinite(e) and e > 0 for e in exposures):
        raise BadInputError(
            f"{told} tells {len(exposures)} exposures of the {count} frames of {path.name}; one "
            "positive number for each was expected"
        )
    return exposures
