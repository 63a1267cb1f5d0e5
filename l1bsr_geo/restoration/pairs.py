"""Noise2Noise on frames that show the same without motion: each is a second look at the others.

Source: Lehtinen et al., Noise2Noise: Learning image restoration without clean data, ICML 2018.
"""

from collections.abc import Sequence

import numpy as np
import torch

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.images.videos import Video
from l1bsr_geo.tiling.nodata import fill_nodata
from l1bsr_geo.training.objective import Batch


class OwnPairs:
    """Crops of two frames of one shot, at the same place, as samples.

    Args:
        video: of a camera that did not move, or of registered frames.
        shots: what cuts part; the whole video where None.
        crop: [px] of the samples, or the whole frame where it is smaller.

    Raises:
        BadInputError: no shot has two frames.
    """

    def __init__(self, video: Video, shots: Sequence[range] | None = None, crop: int = 96) -> None:
        every = shots if shots is not None else [range(video.frames)]
        self._video, self._shots = video, [shot for shot in every if len(shot) > 1]
        self._size = tuple(min(crop, n) for n in video.shape)
        if not self._shots:
            raise BadInputError(
                f"the video has {video.frames} frames, no two of them without a cut between; "
                "noise2noise compares two looks at the same"
            )

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Random frames at random places; views (B, 1, C, h, w), pair and visible beside them."""
        drawn = [self._sample(rng) for _ in range(count)]
        first, second, visible = (torch.from_numpy(np.stack(v)) for v in zip(*drawn, strict=True))
        return Batch(first[:, None], pair=second, visible=visible)

    def _sample(self, rng: np.random.Generator) -> list[np.ndarray]:
        lengths = np.array([len(shot) for shot in self._shots], float)
        shot = self._shots[int(rng.choice(len(self._shots), p=lengths / lengths.sum()))]
        chosen = rng.choice(len(shot), 2, replace=False)
        top, left = (
            int(rng.integers(n - size + 1))
            for n, size in zip(self._video.shape, self._size, strict=True)
        )
        rows, columns = slice(top, top + self._size[0]), slice(left, left + self._size[1])
        looks = [self._video.read(shot[int(k)])[:, rows, columns] for k in chosen]
        known = [np.isfinite(look) for look in looks]
        filled = [fill_nodata(o[None], k[None])[0] for o, k in zip(looks, known, strict=True)]
        visible = (known[0] & known[1]).all(0, keepdims=True).astype(np.float32)
        return [*filled, visible]
