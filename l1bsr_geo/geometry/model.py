"""The GeometryModel protocol and the one pixel convention.

Pixel coordinates are ``(x, y) = (column, row)`` in float64. ``(0, 0)`` is the OUTER CORNER of the
first pixel; its centre is ``(0.5, 0.5)``. Readers convert every other convention, once.
Heights ``h`` are metres above the WGS84 ellipsoid; ``lon, lat`` are degrees in that order.
"""

from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]

Aligned: TypeAlias = Literal["corner", "centre"]
"""What stays in place when pixels get finer: outer corners, or the centres of coarse samples."""


@runtime_checkable
class GeometryModel(Protocol):
    """What every sensor or map model answers; arguments broadcast like numpy arrays."""

    def localize(
        self, x: npt.ArrayLike, y: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Direct location: pixel ``x, y`` at height ``h`` [m] to ``lon, lat`` [degrees]."""
        ...

    def project(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Inverse location: ``lon, lat`` [degrees] at height ``h`` [m] to pixel ``x, y``."""
        ...
