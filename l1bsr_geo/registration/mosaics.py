"""The motion between frames of a burst of raw mosaics, measured on the mosaics themselves.

A mosaic is seen through a filter that mixes one red, two green and one blue in every place,
wherever the pattern begins: what the pattern adds lies at the Nyquist frequency of rows and
columns, where the filter has its zeros. On that luminance the frames of a burst are registered like
any others: one affine each, by least squares (`registration.frames`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.images.flow import BurstFlow
from l1bsr_geo.registration.frames import align_frames

F32 = npt.NDArray[np.float32]

PERIOD = 2  # [px] after which a Bayer pattern repeats itself


def read_luminance(mosaic: npt.NDArray[Any]) -> F32:
    """(red + 2 green + blue) / 4 around every pixel of a Bayer mosaic, whatever its pattern.

    Args:
        mosaic: (height, width) [DN]; one unknown pixel (NaN) makes its neighbours unknown.

    Returns:
        (height, width) [DN].
    """
    light = np.asarray(mosaic, np.float32)
    for axis in (0, 1):  # mirrored about the outermost pixels, which keeps the colours in turn
        light = ndimage.correlate1d(light, [0.25, 0.5, 0.25], axis, mode="mirror")
    return light


def align_mosaics(
    mosaics: Sequence[npt.NDArray[Any]],
    *,
    reference: int | None = None,
    max_uncertainty: float = 0.25,
) -> BurstFlow:
    """Measure the motion of every mosaic to one of them: an affine, and nothing local beside it.

    Args:
        mosaics: T frames (height, width) [DN], in order of time, of one Bayer pattern at any phase.
        reference: which of them; the one in the middle by default.
        max_uncertainty: expected error beyond which a frame is rejected [px]. It is large where
            there is little to see beside the noise, and there it does little harm.

    Returns:
        The flow, all frames in order of time; zero for the reference. Frames that did not prove
        their place are rejected, with reason.

    Raises:
        BadInputError: frames of several sizes, fewer than two, or none that could be registered.
    """
    shapes = {np.shape(mosaic) for mosaic in mosaics}
    if len(mosaics) < 2 or len(shapes) > 1:
        raise BadInputError(
            f"{len(mosaics)} mosaics of shapes {sorted(shapes)}; a burst has two or more of one"
        )
    middle = len(mosaics) // 2 if reference is None else reference
    order = [middle, *(t for t in range(len(mosaics)) if t != middle)]
    burst = Burst(
        sources=tuple(_Luminance(np.asarray(mosaics[t])) for t in order),
        grids=(GeoGrid(np.shape(mosaics[0])),) * len(order),
        exposures=(1.0,) * len(order),
        attrs={"frames": tuple(f"mosaic {t}" for t in order)},
    )
    flow = align_frames(burst, max_uncertainty=max_uncertainty)
    return replace(flow.select(np.argsort(order).tolist()), dense=None)


def in_periods(flow: BurstFlow) -> BurstFlow:
    """The same motion with offsets of whole Bayer periods: the pattern of moved frames is theirs.

    What is left of the motion is then within a pixel instead of half a pixel.
    """
    offsets = PERIOD * np.rint((flow.offsets + flow.affine[:, :, 2]) / PERIOD)
    even = np.where(np.isfinite(offsets), offsets, 0).astype(np.int64)
    affine = flow.affine.copy()
    affine[:, :, 2] += flow.offsets - even
    return replace(flow, offsets=even, affine=affine)


@dataclass(frozen=True, eq=False)
class _Luminance:
    """A mosaic as registration reads it."""

    mosaic: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.mosaic.shape
        return height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def read(self, window: Window) -> F32:
        return read_luminance(self.mosaic)[window.slices]
