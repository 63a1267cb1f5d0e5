"""A look through a noisy video before any work: its shots, its brightness, its noise."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.images.videos import Video
from l1bsr_geo.restoration.cuts import compare_neighbours, part_shots, shrink
from l1bsr_geo.restoration.noise_level import Noise, estimate_noise

_LOOKS = 8  # frames whose brightness is looked at
_BRIGHT = 99.9  # percentile of them that counts as white
_MOST = 1 << 20  # pixels of a frame that are looked at


@dataclass(frozen=True)
class Survey:
    """What a look through a video told.

    Attributes:
        shots: stretches without a cut, in order.
        white: [DN] what the networks are given as white: 255 of 8 bits, else the 99.9th percentile
            of some frames, so that 12 bits, reflectances and radiances are all alike to them.
        noise: as single frames tell, or None where it was not asked for.
    """

    shots: tuple[range, ...]
    white: float
    noise: Noise | None


def survey_video(video: Video, *, noise: bool = True, mosaic: bool = False) -> Survey:
    """Read every frame once, so that a damaged one is found before any work.

    Args:
        video: noisy.
        noise: estimate it.
        mosaic: frames are raw Bayer mosaics.

    Raises:
        BadInputError: a frame cannot be read, or has no data; all of the video is dark.
    """
    shots = part_shots(compare_neighbours(_look_through(video)), video.frames)
    found = estimate_noise(video, mosaic=mosaic) if noise else None
    return Survey(tuple(shots), find_white(video), found)


def _look_through(video: Video) -> Iterator[npt.NDArray[np.float64]]:
    for t in range(video.frames):
        frame = shrink(video.read(t))
        if not np.isfinite(frame).any():
            raise BadInputError(
                f"frame {t} of {video.frames} has no data at all; leave it out (--frames), or mend "
                "it"
            )
        yield frame


def find_white(video: Video) -> float:
    """What counts as white [DN].

    Raises:
        BadInputError: no pixel that was looked at is above 0.
    """
    if video.dtype == np.uint8:
        return 255.0
    brightest = []
    for t in np.unique(np.linspace(0, video.frames - 1, _LOOKS).round().astype(int)):
        pixels = video.read(int(t)).ravel()
        pixels = pixels[:: max(pixels.size // _MOST, 1)]
        pixels = pixels[np.isfinite(pixels)]
        if pixels.size:
            brightest.append(float(np.percentile(pixels, _BRIGHT)))
    white = float(np.median(brightest)) if brightest else 0.0
    if not white > 0:
        raise BadInputError(
            f"the video is dark everywhere: its bright pixels are at {white:g}; give frames whose "
            "values are above 0"
        )
    return white
