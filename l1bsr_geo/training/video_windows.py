"""One's own video by its place on disk, as recipes name it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from l1bsr_geo.readers.videos import read_video
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.own_video import F2F_RULES, MF2F_RULES, OwnVideo

Rules: TypeAlias = Literal["mf2f", "frame2frame"]


@dataclass(frozen=True, eq=False)
class VideoWindows:
    """Windows of a video file, a folder of frames or a raster whose bands are times.

    Attributes:
        source: as for `read_video`.
        crop: [px] of the samples; whole frames where None.
        frames: first and last frame but one; all where None.
        shots: first and last frame but one of what cuts part; no cut where empty.
        reach: frames on each side of the reference: 4 for mf2f, 1 is enough for frame2frame.
        targets: the frames that are held out, as the objective's.
        rules: how motion is found and judged.
        full_scale: [DN] of white.
        bands_per_frame: of a raster whose bands are times.
    """

    source: Path
    crop: int | None = 96
    frames: tuple[int, int] | None = None
    shots: Sequence[tuple[int, int]] = ()
    reach: int = 4
    targets: Sequence[int] = (-1, 1)
    rules: Rules = "mf2f"
    full_scale: float = 255.0
    bands_per_frame: int = 1

    @cached_property
    def windows(self) -> OwnVideo:
        """The windows; no pixel is read yet.

        Raises:
            L1bsrGeoError: as `read_video` and `OwnVideo`.
        """
        chosen = None if self.frames is None else slice(*self.frames)
        return OwnVideo(
            read_video(self.source, chosen, bands_per_frame=self.bands_per_frame),
            reach=self.reach,
            targets=self.targets,
            crop=self.crop,
            shots=[range(*shot) for shot in self.shots] or None,
            full_scale=self.full_scale,
            rules=MF2F_RULES if self.rules == "mf2f" else F2F_RULES,
        )

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Windows around references drawn at random; see `Source`."""
        return self.windows.draw(rng, count)
