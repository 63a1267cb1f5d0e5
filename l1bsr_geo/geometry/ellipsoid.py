"""The WGS84 ellipsoid: geodetic and Cartesian coordinates, and where a ray meets the ground."""

import numpy as np

from l1bsr_geo.geometry.model import FloatArray

SEMI_MAJOR = 6378137.0  # WGS84 [m]
FLATTENING = 1 / 298.257223563
SEMI_MINOR = SEMI_MAJOR * (1 - FLATTENING)
ECCENTRICITY2 = FLATTENING * (2 - FLATTENING)


def geodetic_to_ecef(lon: FloatArray, lat: FloatArray, h: FloatArray) -> FloatArray:
    """``lon, lat`` [degrees] and ``h`` [m] to ITRF (3, ...) [m]."""
    lam, phi = np.radians(lon), np.radians(lat)
    n = SEMI_MAJOR / np.sqrt(1 - ECCENTRICITY2 * np.sin(phi) ** 2)
    p = (n + h) * np.cos(phi)
    return np.stack([p * np.cos(lam), p * np.sin(lam), (n * (1 - ECCENTRICITY2) + h) * np.sin(phi)])


def ecef_to_geodetic(point: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """ITRF (3, ...) [m] to ``lon, lat`` [degrees] and ``h`` [m]; Bowring, below 1e-9 degree."""
    x, y, z = point
    p = np.hypot(x, y)
    beta = np.arctan2(z * SEMI_MAJOR, p * SEMI_MINOR)
    phi = np.arctan2(
        z + ECCENTRICITY2 / (1 - ECCENTRICITY2) * SEMI_MINOR * np.sin(beta) ** 3,
        p - ECCENTRICITY2 * SEMI_MAJOR * np.cos(beta) ** 3,
    )
    sin, cos = np.sin(phi), np.cos(phi)
    h = p * cos + z * sin - SEMI_MAJOR * np.sqrt(1 - ECCENTRICITY2 * sin**2)
    return np.degrees(np.arctan2(y, x)), np.degrees(phi), h


def meet_ellipsoid(
    position: FloatArray, direction: FloatArray, h: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Where the ray from ``position`` along ``direction`` (3, ...) first reaches height ``h`` [m].

    Returns:
        ``lon, lat`` [degrees]; NaN for a ray past the Earth.
    """
    direction = direction / np.linalg.norm(direction, axis=0)
    a, b = SEMI_MAJOR + h, SEMI_MINOR + h  # off the surface of height h by less than 5 cm
    inverse = np.stack([1 / a, 1 / a, 1 / b])
    p, d = position * inverse, direction * inverse
    dd, pd, pp = (d * d).sum(0), (p * d).sum(0), (p * p).sum(0)
    with np.errstate(invalid="ignore"):  # a ray past the Earth has no place: NaN
        distance = (-pd - np.sqrt(pd * pd - dd * (pp - 1))) / dd
    point = position + distance * direction
    lon, lat, height = ecef_to_geodetic(point)
    up = geodetic_to_ecef(lon, lat, np.ones_like(h)) - geodetic_to_ecef(lon, lat, np.zeros_like(h))
    point = point + (h - height) / (direction * up).sum(0) * direction
    lon, lat, _ = ecef_to_geodetic(point)
    return lon, lat
