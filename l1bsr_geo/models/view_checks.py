"""What a model is given and what it gives, against its spec."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.models.base import ModelSpec

Pixels = npt.NDArray[np.float32]


def check_views(
    spec: ModelSpec, views: Pixels, flow: Pixels | None, exposures: Pixels | None = None
) -> None:
    """Refuse views, flow and exposures that a model does not take; see ``Model.restore``.

    Raises:
        BadInputError: with what it takes.
    """
    if views.ndim != 5 or 0 in views.shape:
        raise BadInputError(
            f"{spec.name} takes views (batch, frame, band, row, column); got {views.shape}"
        )
    frames, bands = views.shape[1:3]
    if not spec.frames[0] <= frames <= spec.frames[1]:
        raise BadInputError(
            f"{spec.name} takes {spec.frames[0]} to {spec.frames[1]} frames; got {frames}"
        )
    _check_bands(spec, bands)
    if flow is not None and flow.shape != (*views.shape[:3], 2, *views.shape[3:]):
        raise BadInputError(f"{spec.name}: the flow of views {views.shape} has shape {flow.shape}")
    if exposures is None or not spec.exposures:
        return
    if exposures.shape != views.shape[:2] or not (exposures > 0).all():
        raise BadInputError(
            f"{spec.name} takes an exposure above zero for each of {views.shape[0]} x "
            f"{frames} frames; got {np.array2string(np.asarray(exposures), threshold=8)}"
        )


def check_sequence(spec: ModelSpec, frames: Pixels, noise: Pixels | float | None) -> Pixels | None:
    """Refuse frames and noise that a model does not take; see ``Model.restore_sequence``.

    Returns:
        The noise in every pixel, (N, 1, H, W); a view of what was given.

    Raises:
        BadInputError: with what it takes.
    """
    if frames.ndim != 4 or 0 in frames.shape:
        raise BadInputError(
            f"{spec.name} takes a sequence (frame, band, row, column); got {frames.shape}"
        )
    _check_bands(spec, frames.shape[1])
    if noise is None:
        return None
    told = np.asarray(noise, np.float32)
    shape = (len(frames), 1, *frames.shape[-2:])
    try:
        told = np.broadcast_to(told, shape)
    except ValueError:
        raise BadInputError(
            f"{spec.name}: the noise of frames {frames.shape} has shape {told.shape}; it is one "
            f"number, or for each pixel {shape}, where any axis may be 1"
        ) from None
    if not (told >= 0).all():
        raise BadInputError(f"{spec.name}: the noise is negative or not a number somewhere")
    return told


def check_result(spec: ModelSpec, views: Sequence[int], result: Sequence[int]) -> None:
    """Refuse a result of another shape than the spec promises.

    Args:
        spec: of the restorer.
        views: shape of what it was given, (B, T, C, H, W).
        result: shape of what it gave; any axes may come before (B, C, sH, sW).

    Raises:
        BadInputError: with both shapes.
    """
    bands = views[2] if spec.result_bands is None else len(spec.result_bands)
    expected = (views[0], bands, *(spec.scale * n for n in views[-2:]))
    if tuple(result[-4:]) != expected:
        raise BadInputError(
            f"{spec.name} made {tuple(result)} of views {tuple(views)}, but at its scale "
            f"{spec.scale} that should be {expected}; mend its spec or the network"
        )


def _check_bands(spec: ModelSpec, bands: int) -> None:
    if bands != (spec.band_count or bands):
        names = f" ({', '.join(spec.bands)})" if spec.bands else ""
        raise BadInputError(f"{spec.name} takes {spec.band_count} bands{names}; got {bands}")
