"""The Sentinel-2 MSI instrument model: where a detector pixel looks, from attitude and orbit.

Source: the ESA L1B location model as published with Sen2VM (github.com/sen2vm/sen2vm-core) and the
public GIPP files; derived anew with numpy and erfa and checked against Sen2VM's own grids.

Frames: *instrument* (x along track, y across, z to the ground) -> *satellite* (piloting) ->
EME2000 -> ITRF. Light time, aberration and refraction are neglected, as Sen2VM does.
"""

from dataclasses import dataclass

import erfa
import numpy as np
import numpy.typing as npt

from l1bsr_geo.geometry.ellipsoid import SEMI_MAJOR as SEMI_MAJOR
from l1bsr_geo.geometry.ellipsoid import ecef_to_geodetic as ecef_to_geodetic
from l1bsr_geo.geometry.ellipsoid import geodetic_to_ecef as geodetic_to_ecef
from l1bsr_geo.geometry.ellipsoid import meet_ellipsoid
from l1bsr_geo.geometry.model import FloatArray

TT_MINUS_GPS = 51.184  # [s], TT = TAI + 32.184 s and TAI = GPS + 19 s
GPS_EPOCH_JD = 2444244.5  # 1980-01-06
_CHUNK = 1 << 16  # points at a time: temporaries stay in cache


@dataclass(frozen=True)
class EarthOrientation:
    """What ties GPS time to the rotation of the Earth (datastrip IERS_Bulletin).

    Attributes:
        gps_minus_utc: leap seconds since 1980 [s].
        ut1_minus_utc: [s].
        pole_x: polar motion u [arcsec].
        pole_y: polar motion v [arcsec].
    """

    gps_minus_utc: float
    ut1_minus_utc: float
    pole_x: float
    pole_y: float


@dataclass(frozen=True)
class ViewingDirections:
    """Tangents of the viewing angles at every column centre of one band and detector.

    Attributes:
        tan_x: (n,) TAN_PSI_X, across track, monotonic.
        tan_y: (n,) TAN_PSI_Y, along track.
    """

    tan_x: FloatArray
    tan_y: FloatArray

    @classmethod
    def from_polynomials(cls, n: int, x: npt.ArrayLike, y: npt.ArrayLike) -> "ViewingDirections":
        """From powers (lowest first) of u = (2 column - (n - 1)) / (n - 1)."""
        u = np.linspace(-1.0, 1.0, n)
        value = np.polynomial.polynomial.polyval
        tan_x, tan_y = (np.asarray(value(u, np.asarray(c, np.float64)), float) for c in (x, y))
        return cls(tan_x, tan_y)


@dataclass(frozen=True, eq=False)
class Sentinel2Model:
    """Geometry of one band of one detector, over the pixels of its strip.

    Pixel (x, y): x counts columns of the strip, y counts the band's lines from the strip's first
    (granule POSITION 1), outer corner first.

    Attributes:
        directions: viewing directions at column centres.
        columns: columns of the band's images; the directions are stretched over them.
        first_line_time: GPS seconds since ``epoch`` at y = 0 (the start of the first line).
        line_period: seconds to a line of this band.
        z_scale: 1 + the homothety of the refined focal length.
        attitude_time: (N,) increasing [s since epoch].
        attitude: (N, 4) quaternions x y z w, instrument to ITRF.
        orbit_time: (M,) increasing [s since epoch].
        orbit_position: (M, 3) ITRF [m].
        orbit_velocity: (M, 3) ITRF [m/s].
        epoch: GPS seconds since 1980-01-06 of time zero.
    """

    directions: ViewingDirections
    columns: int
    first_line_time: float
    line_period: float
    z_scale: float
    attitude_time: FloatArray
    attitude: FloatArray
    orbit_time: FloatArray
    orbit_position: FloatArray
    orbit_velocity: FloatArray
    epoch: float

    def localize(
        self, x: npt.ArrayLike, y: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Pixel to ``lon, lat`` [degrees] at height ``h`` [m above WGS84]."""
        return _in_chunks(self._localize, x, y, h)

    def project(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """``lon, lat`` [degrees] at height ``h`` [m] to the pixel that sees it.

        The line is found by secant steps on the along-track angle, the column follows from the
        across-track angle. Points far outside the strip give coordinates far outside it.
        """
        return _in_chunks(self._project, lon, lat, h)

    def _localize(
        self, x: FloatArray, y: FloatArray, h: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        rotation, position = self._pose(self.first_line_time + y * self.line_period)
        column = x * (len(self.directions.tan_x) / self.columns) - 0.5
        tan_x, tan_y = (_table(t, column) for t in (self.directions.tan_x, self.directions.tan_y))
        instrument = np.stack([tan_y, -tan_x, np.full_like(tan_x, self.z_scale)])
        return meet_ellipsoid(position, np.einsum("ij...,j...->i...", rotation, instrument), h)

    def _project(
        self, lon: FloatArray, lat: FloatArray, h: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        ground = geodetic_to_ecef(lon, lat, h)
        t0 = self._nearest_pass(ground)
        column, f0 = self._mismatch(t0, ground)
        t1 = t0 + 0.05  # a first slope; the wobble of the attitude is slower
        for _ in range(12):
            column, f1 = self._mismatch(t1, ground)
            slope = f1 - f0
            step = np.where(slope == 0.0, 0.0, -f1 * (t1 - t0) / np.where(slope == 0, 1, slope))
            step = np.clip(step, -60.0, 60.0)
            t0, f0, t1 = t1, f1, t1 + step
            if np.all(np.abs(step) < 1e-6 * self.line_period):
                break
        x = (column + 0.5) * (self.columns / len(self.directions.tan_x))
        return x, (t1 - self.first_line_time) / self.line_period

    def _mismatch(self, t: FloatArray, ground: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Column that sees the across-track angle, and how far off the along-track angle is."""
        rotation, position = self._pose(t)
        v = np.einsum("ji...,j...->i...", rotation, ground - position)
        column = _inverse_table(self.directions.tan_x, -v[1] / v[2] * self.z_scale)
        return column, v[0] / v[2] * self.z_scale - _table(self.directions.tan_y, column)

    def _nearest_pass(self, ground: FloatArray) -> FloatArray:
        """Time of the orbit point nearest to being overhead, refined on the straight line."""
        every = max(1, len(self.orbit_time) // 64)
        time, position = self.orbit_time[::every], self.orbit_position[::every]
        overhead = position / np.linalg.norm(position, axis=1, keepdims=True)
        k = np.argmax(overhead @ ground.reshape(3, -1), axis=0).reshape(ground.shape[1:])
        velocity = self.orbit_velocity[::every][k]
        speed2 = (velocity**2).sum(-1)
        along = ((np.moveaxis(ground, 0, -1) - position[k]) * velocity).sum(-1)
        radius = np.linalg.norm(position[k], axis=-1)
        stretch = radius / np.linalg.norm(ground, axis=0)  # orbit arc over ground arc
        return np.asarray(time[k] + along / speed2 * stretch)

    def _pose(self, t: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Rotation instrument to ITRF (3, 3, ...) and position in ITRF (3, ...) [m]."""
        k, w = _segments(self.attitude_time, t)
        q = self.attitude[k] * (1 - w)[..., None] + self.attitude[k + 1] * w[..., None]
        q /= np.linalg.norm(q, axis=-1, keepdims=True)  # 0.1 s apart: equal to slerp to 1e-12 rad
        return rotation_of(q), self._position(t)

    def _position(self, t: FloatArray) -> FloatArray:
        """Cubic Hermite interpolation of the orbit points."""
        k, w = _segments(self.orbit_time, t)
        dt = self.orbit_time[k + 1] - self.orbit_time[k]
        h00, h10 = (1 + 2 * w) * (1 - w) ** 2, w * (1 - w) ** 2 * dt
        h01, h11 = w**2 * (3 - 2 * w), w**2 * (w - 1) * dt
        p, v = self.orbit_position, self.orbit_velocity
        mix = (
            h00[..., None] * p[k]
            + h10[..., None] * v[k]
            + h01[..., None] * p[k + 1]
            + h11[..., None] * v[k + 1]
        )
        return np.moveaxis(mix, -1, 0)


def instrument_to_itrf(
    gps_time: FloatArray,
    satellite_to_eme2000: FloatArray,
    instrument_angles: FloatArray,
    focal_plane_angles: FloatArray,
    earth: EarthOrientation,
) -> FloatArray:
    """Quaternions from the instrument's band frame to ITRF at the attitude samples.

    Args:
        gps_time: (N,) GPS seconds since 1980-01-06.
        satellite_to_eme2000: (N, 4) quaternions x y z w, active rotation of satellite axes.
        instrument_angles: (N, 3) angles a_x, a_y, a_z [rad] of satellite <- instrument,
            applied as Ry(a_y) Rx(a_x) Rz(a_z).
        focal_plane_angles: (3,) the same for instrument <- focal plane.
        earth: Earth orientation parameters.

    Returns:
        (N, 4) quaternions x y z w of one continuous sign.
    """
    terrestrial = celestial_to_terrestrial(gps_time, earth)
    satellite = np.moveaxis(rotation_of(satellite_to_eme2000), -1, 0)
    instrument = rotation_yxz(instrument_angles) @ rotation_yxz(focal_plane_angles)
    return quaternion_of(terrestrial @ satellite @ instrument)


def celestial_to_terrestrial(gps_time: FloatArray, earth: EarthOrientation) -> FloatArray:
    """Rotation matrices (N, 3, 3) from EME2000 to ITRF (IAU 2006/2000A, erfa c2t06a).

    EME2000 differs from the GCRS by the frame bias (erfa bp06).
    """
    day = np.asarray(gps_time, np.float64) / 86400.0
    tt = day + TT_MINUS_GPS / 86400.0
    ut1 = day + (earth.ut1_minus_utc - earth.gps_minus_utc) / 86400.0
    arcsec = np.pi / 648000.0
    c2t = erfa.c2t06a(
        GPS_EPOCH_JD, tt, GPS_EPOCH_JD, ut1, earth.pole_x * arcsec, earth.pole_y * arcsec
    )
    bias = erfa.bp06(GPS_EPOCH_JD, float(np.mean(tt)))[0]
    return np.asarray(c2t @ bias.T)


def rotation_yxz(angles: FloatArray) -> FloatArray:
    """Matrices (..., 3, 3) = Ry(a_y) Rx(a_x) Rz(a_z) of angles (..., 3) = a_x, a_y, a_z [rad]."""
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(f(angles), -1, 0) for f in (np.cos, np.sin))
    zero, one = np.zeros_like(cx), np.ones_like(cx)

    def matrix(*rows: FloatArray) -> FloatArray:
        return np.stack(rows, -1).reshape(*np.shape(cx), 3, 3)

    about_x = matrix(one, zero, zero, zero, cx, -sx, zero, sx, cx)
    about_y = matrix(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_z = matrix(cz, -sz, zero, sz, cz, zero, zero, zero, one)
    return np.asarray(about_y @ about_x @ about_z)


def rotation_of(q: FloatArray) -> FloatArray:
    """Matrices (3, 3, ...) of unit quaternions (..., 4) = x y z w, active rotation."""
    x, y, z, w = np.moveaxis(q, -1, 0)
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)]),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)]),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]),
        ]
    )


def quaternion_of(rotation: FloatArray) -> FloatArray:
    """Unit quaternions (N, 4) = x y z w of matrices (N, 3, 3), signs made continuous along N."""
    m = rotation
    trace = np.einsum("nii->n", m)
    # the four candidate rows of the symmetric matrix q q^T; the largest one is the stable one
    d = np.diagonal(m, axis1=1, axis2=2)
    squares = np.concatenate([1 + 2 * d - trace[:, None], (1 + trace)[:, None]], 1)  # 4 q_i^2
    k = np.argmax(squares, 1)
    cross = np.empty((len(m), 4, 4))
    cross[:, 3, :3] = np.stack(
        [m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], 1
    )
    cross[:, :3, 3] = cross[:, 3, :3]
    cross[:, :3, :3] = m + np.swapaxes(m, 1, 2)
    cross[:, range(4), range(4)] = squares
    q = cross[np.arange(len(m)), k]
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    flips = np.sign((q[1:] * q[:-1]).sum(1))
    q[1:] *= np.cumprod(np.where(flips == 0, 1.0, flips))[:, None]
    return np.asarray(q)


def _segments(nodes: FloatArray, t: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Segment of each t among increasing nodes and the weight of its end; extrapolates."""
    k = np.clip(np.searchsorted(nodes, t, side="right") - 1, 0, len(nodes) - 2)
    return k, (t - nodes[k]) / (nodes[k + 1] - nodes[k])


def _table(values: FloatArray, at: FloatArray) -> FloatArray:
    """Linear interpolation at fractional indices, extrapolated beyond the ends."""
    k = np.clip(np.floor(at).astype(np.intp), 0, len(values) - 2)
    return np.asarray(values[k] + (at - k) * (values[k + 1] - values[k]))


def _inverse_table(values: FloatArray, wanted: FloatArray) -> FloatArray:
    """Fractional index at which a monotonic table takes a value, extrapolated."""
    sign = 1.0 if values[-1] > values[0] else -1.0
    k, w = _segments(sign * values, sign * wanted)
    return k + w


def _in_chunks(
    function: object, a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Call a function of three flat arrays on cache-sized pieces of broadcast arguments."""
    assert callable(function)
    parts = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (a, b, c)))
    flat = [v.ravel() for v in parts]
    out = np.empty((2, flat[0].size))
    for start in range(0, flat[0].size, _CHUNK):
        piece = slice(start, start + _CHUNK)
        out[:, piece] = function(*(v[piece] for v in flat))
    return out[0].reshape(parts[0].shape), out[1].reshape(parts[0].shape)
