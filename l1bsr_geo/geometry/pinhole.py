"""The pinhole model of a frame camera: a 3 x 4 projection of Earth-fixed coordinates."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1bsr_geo.geometry.ellipsoid import geodetic_to_ecef, meet_ellipsoid
from l1bsr_geo.geometry.model import FloatArray


@dataclass(frozen=True, eq=False)
class PinholeModel:
    """A camera without distortion, above the ground that it sees.

    Attributes:
        projection: (3, 4) P: ``(x w, y w, w) = P (X, Y, Z, 1)`` with X, Y, Z in ITRF [m] and pixel
            ``x, y`` in the one convention, (0, 0) at the outer corner of the first pixel.
    """

    projection: FloatArray

    @property
    def centre(self) -> FloatArray:
        """Where the camera is, (3,) ITRF [m]."""
        return np.asarray(np.linalg.solve(self.projection[:, :3], -self.projection[:, 3]))

    def project(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """``lon, lat`` [degrees] at height ``h`` [m] to pixel ``x, y``."""
        ground = geodetic_to_ecef(*_broadcast(lon, lat, h))
        # relative to the camera: small numbers, so that no digit is lost
        from_camera = ground - _as_columns(self.centre, ground.ndim)
        x, y, w = np.tensordot(self.projection[:, :3], from_camera, 1)
        return x / w, y / w

    def localize(
        self, x: npt.ArrayLike, y: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Pixel to ``lon, lat`` [degrees] where its ray first reaches height ``h`` [m].

        A ray past the Earth gives NaN.
        """
        x, y, h = _broadcast(x, y, h)
        pixel = np.stack([x, y, np.ones_like(x)])
        ray = np.tensordot(np.linalg.inv(self.projection[:, :3]), pixel, 1)
        centre = _as_columns(self.centre, ray.ndim)
        down = -(ray * centre).sum(0)  # the sign of P is arbitrary, the ground is below
        return meet_ellipsoid(centre, ray * np.where(down < 0, -1.0, 1.0), h)


def _broadcast(*values: npt.ArrayLike) -> list[FloatArray]:
    return [np.asarray(v) for v in np.broadcast_arrays(*(np.asarray(v, float) for v in values))]


def _as_columns(point: FloatArray, ndim: int) -> FloatArray:
    return point.reshape(3, *[1] * (ndim - 1))
