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
    if spec.bands is not None and bands != len(spec.bands):
        raise BadInputError(
            f"{spec.name} takes {len(spec.bands)} bands ({', '.join(spec.bands)}); got {bands}"
        )
    if flow is not None and flow.shape != (*views.shape[:3], 2, *views.shape[3:]):
        raise BadInputError(f"{spec.name}: the flow of views {views.shape} has shape {flow.shape}")
    if exposures is None or not spec.exposures:
        return
    if exposures.shape != views.shape[:2] or not (exposures > 0).all():
        raise BadInputError(
            f"{spec.name} takes an exposure above zero for each of {views.shape[0]} x "
            f"{frames} frames; got {np.array2string(np.asarray(exposures), threshold=8)}"
        )


def check_result(spec: ModelSpec, views: Sequence[int], result: Sequence[int]) -> None:
    """Refuse a result of another shape than the spec promises.

    Args:
        spec: of the restorer.
        views: shape of what it was given, (B, T, C, H, W).
        result: shape of what it gave; any axes may come before (B, C, sH, sW).

    Raises:
        BadInputError: with both shapes.
    """
    expected = (views[0], views[2], *(spec.scale * n for n in views[-2:]))
    if tuple(result[-4:]) != expected:
        raise BadInputError(
            f"{spec.name} made {tuple(result)} of views {tuple(views)}, but at its scale "
            f"{spec.scale} that should be {expected}; mend its spec or the network"
        )
