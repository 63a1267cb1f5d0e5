"""What a network is to be told of noise that nobody knows.

Single frames tell white noise well and take most of correlated noise for texture. A network that is
told too little then takes off more than it was told, which betrays it: it is told more than that,
and asked again. More, because of correlated noise it leaves much when it is told what there is.
"""

from collections.abc import Sequence

import numpy as np

from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.videos import Video
from l1bsr_geo.models.registry import Model
from l1bsr_geo.restoration.noise_level import Noise, estimate_from_residuals
from l1bsr_geo.restoration.sequence import F32, map_noise
from l1bsr_geo.tiling.nodata import fill_nodata

_WINDOWS = 3  # that are looked at
_SIDE = 256  # [px] of them, at most
_MORE = 1.2  # times the deviation that was told, from which it was too little
_AGAIN = 1.5  # times the deviation that was taken off is told then
_ROUNDS = 6


def settle_noise(model: Model, video: Video, shots: Sequence[range], noise: Noise) -> Noise:
    """The noise to tell: what single frames say, or more where more is taken off.

    Args:
        model: takes stacks in order of time, and the noise.
        video: noisy.
        shots: what cuts part.
        noise: as single frames tell it [DN].
    """
    stacks = _choose_stacks(video, shots, model.spec.frames[1])
    if not stacks:
        return noise
    middle = model.spec.frames[1] // 2
    for _ in range(_ROUNDS):
        pairs = []
        for stack in stacks:
            known = np.isfinite(stack)
            filled = fill_nodata(stack, known)
            told = np.stack([map_noise(noise)(frame) for frame in filled])
            restored = model.restore_sequence(filled, told)[middle]
            pairs.append((stack[middle], restored))
        taken_off = estimate_from_residuals(pairs)
        level = float(np.nanmedian([restored for _, restored in pairs]))
        if taken_off.deviation(level) <= _MORE * noise.deviation(level):
            return noise
        noise = Noise(taken_off.a * _AGAIN**2, taken_off.b * _AGAIN**2)
    return noise


def _choose_stacks(video: Video, shots: Sequence[range], frames: int) -> list[F32]:
    """Stacks (T, C, h, w) of the middle of the frame, spread over the shots that have as many."""
    starts = [t for shot in shots for t in range(shot.start, shot.stop - frames + 1)]
    if not starts:
        return []
    chosen = {starts[int(k)] for k in np.linspace(0, len(starts) - 1, _WINDOWS).round()}
    height, width = (min(n, _SIDE) for n in video.shape)
    top, left = ((n - size) // 2 for n, size in zip(video.shape, (height, width), strict=True))
    window = Window(left, top, width, height).intersect(GeoGrid(video.shape).window)
    stacks = [
        np.stack([video.read(t, window) for t in range(start, start + frames)])
        for start in sorted(chosen)
    ]
    enough = [np.isfinite(stack).mean() > 0.5 for stack in stacks]
    return [stack for stack, good in zip(stacks, enough, strict=True) if good]
