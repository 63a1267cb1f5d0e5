"""A made-up Sentinel-2 overpass: orbit, attitude, line times and names, all self-consistent.

The orbit is circular and sun-synchronous-like, the attitude is that of the real satellite: z to the
centre of the Earth, x along the velocity over the ground (yaw steering), plus a small wobble.
Source: measured on the S2A datastrip of 2020-08-16 that Sen2VM publishes as its test set TDS1.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import erfa
import numpy as np

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.msi_figures import spacecraft_models, viewing_directions
from l1bsr_geo.geometry.sentinel2 import (
    GPS_EPOCH_JD,
    TT_MINUS_GPS,
    EarthOrientation,
    Sentinel2Model,
    celestial_to_terrestrial,
    geodetic_to_ecef,
    instrument_to_itrf,
    quaternion_of,
    rotation_yxz,
)

GPS_EPOCH = datetime(1980, 1, 6, tzinfo=UTC)
LINE_PERIOD = 1.565873622e-3  # [s] of a 10 m line
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
RESOLUTION = dict(
    zip(BANDS, (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20), strict=True)
)  # [m]
TDI_BANDS = ("B03", "B04", "B11", "B12")
SWIR_BANDS = ("B10", "B11", "B12")

# First lines of the detectors' B04 after detector 1's, and of every band after the detector's B04,
# in 10 m line periods; detectors 1 to 12. Source: Band_Time_Stamp of the TDS1 datastrip.
DETECTOR_LINES = (0, -2612, -17, -2596, -26, -2588, -27, -2588, -21, -2594, -5, -2608)
BAND_LINES = {
    "B01": (857, -845, 844, -837, 841, -833, 836, -833, 842, -839, 850, -849),
    "B02": (-652, 649, -644, 642, -639, 637, -638, 637, -641, 641, -648, 649),
    "B03": (-311, 312, -307, 309, -305, 307, -305, 307, -306, 309, -310, 312),
    "B04": (0,) * 12,
    "B05": (171, -169, 168, -167, 169, -167, 166, -167, 168, -167, 168, -169),
    "B06": (339, -339, 336, -337, 335, -335, 332, -335, 332, -335, 336, -341),
    "B07": (511, -509, 504, -505, 501, -501, 500, -501, 500, -503, 506, -509),
    "B08": (-482, 481, -476, 475, -473, 472, -472, 471, -475, 475, -480, 480),
    "B8A": (679, -681, 670, -673, 667, -669, 664, -669, 666, -673, 672, -681),
    "B09": (1031, -1025, 1012, -1011, 1003, -1007, 1010, -1007, 1010, -1013, 1018, -1023),
    "B10": (-91, 103, -86, 99, -83, 103, -88, 103, -82, 103, -86, 111),
    "B11": (321, -309, 316, -305, 315, -301, 314, -301, 318, -303, 318, -305),
    "B12": (723, -715, 716, -707, 713, -699, 710, -701, 714, -705, 720, -711),
}

ORBIT_RADIUS = 6378137.0 + 786e3  # [m]
INCLINATION = np.radians(98.62)
EARTH_RATE = 7.2921150e-5  # [rad/s]
GRAVITY = 3.986004418e14  # [m3/s2]
EARTH = EarthOrientation(18.0, -0.0412, 0.1731, 0.4404)  # of an ordinary day
MARGIN = 12.0  # [s] of orbit and attitude before and after the lines


@dataclass(frozen=True)
class Overpass:
    """One datastrip of a simulated Sentinel-2.

    Attributes:
        lon: where the middle of the strip passes at nadir [degrees].
        lat: the same; between -80 and 80 [degrees].
        start: UTC of the first B04 line of detector 1.
        platform: "S2A", "S2B" or "S2C": whose viewing directions and frames are used.
        detectors: which detectors (1 to 12) the datastrip has.
        granules: granules of each detector.
        granule_lines: 10 m lines of a granule, a multiple of 6; 2304 in real products. Names of
            granules carry whole seconds, hence 642 at least where there are several.
        add_offset: RADIO_ADD_OFFSET of every band [DN], None before baseline 04.00.
        baseline: processing baseline.
        binned: whether 60 m bands have 425 columns (now) or 1276 (old products).
        wobble: amplitude of the pointing wobble [m on the ground].
        seed: of the wobble's phases.
        earth: leap seconds, UT1 and polar motion.
    """

    lon: float
    lat: float
    start: datetime = datetime(2024, 7, 14, 10, 46, 29, 24000, tzinfo=UTC)
    platform: str = "S2A"
    detectors: tuple[int, ...] = (5,)
    granules: int = 2
    granule_lines: int = 2304
    add_offset: float | None = -100.0
    baseline: str = "05.11"
    binned: bool = True
    wobble: float = 7.0
    seed: int = 0
    earth: EarthOrientation = EARTH

    def __post_init__(self) -> None:
        seconds = self.granule_lines * LINE_PERIOD
        if self.granule_lines % 6 or (self.granules > 1 and seconds < 1.0):
            raise BadOptionError(
                f"granule_lines is {self.granule_lines}; expected a multiple of 6, and at least "
                "642 with several granules, because their names carry whole seconds"
            )

    @property
    def lines(self) -> int:
        """10 m lines of the strip."""
        return self.granules * self.granule_lines

    def shape(self, band: str) -> tuple[int, int]:
        """``(rows, columns)`` of a granule of a band."""
        resolution = RESOLUTION[band]
        columns = {10: 2552, 20: 1276, 60: 425 if self.binned else 1276}[resolution]
        return self.granule_lines * 10 // resolution, columns

    def line_time(self, detector: int, band: str, line: int = 0) -> datetime:
        """UTC at which a 10 m line of a band begins, line 0 first, to the microsecond."""
        lines = DETECTOR_LINES[detector - 1] + BAND_LINES[band][detector - 1] + line
        return self.start + timedelta(seconds=lines * LINE_PERIOD)

    @cached_property
    def sensing(self) -> tuple[datetime, datetime]:
        """UTC of the first line and of the end of the last one, over detectors and bands."""
        first = [self.line_time(d, b) for d in self.detectors for b in BANDS]
        return min(first), max(first) + timedelta(seconds=self.lines * LINE_PERIOD)

    def gps_seconds(self, utc: datetime) -> float:
        """GPS seconds since 1980-01-06."""
        return (utc - GPS_EPOCH).total_seconds() + self.earth.gps_minus_utc

    @cached_property
    def orbit(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """GPS seconds (N,) every second, ITRF positions [m] and velocities [m/s] (N, 3)."""
        t0, t1 = (self.gps_seconds(t) for t in self.sensing)
        t = np.arange(np.floor(t0 - MARGIN), np.ceil(t1 + MARGIN) + 1)
        return t, *self._orbit_at(t)

    @cached_property
    def attitude(self) -> tuple[FloatArray, FloatArray]:
        """GPS seconds (N,) ten times a second and quaternions (N, 4), satellite to EME2000."""
        t0, t1 = (self.gps_seconds(t) for t in self.sensing)
        t = np.arange(np.floor(t0 - MARGIN) * 10, np.ceil(t1 + MARGIN) * 10 + 1) / 10
        position, velocity = self._orbit_at(t)
        z = -position / np.linalg.norm(position, axis=1, keepdims=True)
        y = np.cross(z, velocity)
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        steered = np.stack([np.cross(y, z), y, z], -1)
        to_eme = np.swapaxes(celestial_to_terrestrial(t, self.earth), 1, 2)
        return t, quaternion_of(to_eme @ steered @ rotation_yxz(self._wobble_at(t)))

    def model(self, detector: int, band: str) -> Sentinel2Model:
        """The instrument model of a band of a detector, unrefined; what a reader must find."""
        directions = viewing_directions(self.platform, band)[-1]
        frames = spacecraft_models(self.platform)[-1]
        time, attitude = self.attitude
        epoch = float(time[0])
        angles = np.broadcast_to(-frames.piloting_to_msi, (len(time), 3))
        plane = -frames.msi_to_focal_plane["SWIR" if band in SWIR_BANDS else "VNIR"]
        orbit_time, position, velocity = self.orbit
        tdi = "APPLIED" if band in TDI_BANDS else None
        return Sentinel2Model(
            directions=directions.directions(detector, tdi),
            columns=self.shape(band)[1],
            first_line_time=self.gps_seconds(self.line_time(detector, band)) - epoch,
            line_period=LINE_PERIOD * RESOLUTION[band] / 10,
            z_scale=1.0,
            attitude_time=time - epoch,
            attitude=instrument_to_itrf(time, attitude, angles, plane, self.earth),
            orbit_time=orbit_time - epoch,
            orbit_position=position,
            orbit_velocity=velocity,
            epoch=epoch,
        )

    def position(self, utc: datetime) -> FloatArray:
        """Where the satellite is, ITRF (3,) [m]."""
        positions, _ = self._orbit_at(np.array([self.gps_seconds(utc)]))
        return np.asarray(positions[0])

    def sun_direction(self, utc: datetime) -> FloatArray:
        """Unit vector to the Sun in ITRF (3,); good to a few hundredths of a degree."""
        t = np.array([self.gps_seconds(utc)])
        heliocentric, _ = erfa.epv00(GPS_EPOCH_JD, (t[0] + TT_MINUS_GPS) / 86400.0)
        sun = celestial_to_terrestrial(t, self.earth)[0] @ -heliocentric["p"]
        return np.asarray(sun / np.linalg.norm(sun))

    def _orbit_at(self, t: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Position [m] and velocity [m/s] in ITRF (N, 3): a circle in axes that do not turn."""
        overhead = geodetic_to_ecef(*(np.array(v) for v in (self.lon, self.lat, 0.0)))
        overhead /= np.linalg.norm(overhead)
        east = np.array([-overhead[1], overhead[0], 0.0]) / np.hypot(*overhead[:2])
        north = np.cross(overhead, east)
        sin_heading = np.cos(INCLINATION) / np.hypot(*overhead[:2])
        forward = sin_heading * east - np.sqrt(1 - sin_heading**2) * north  # descending
        rate = np.sqrt(GRAVITY / ORBIT_RADIUS**3)
        tau = t - self._time_overhead()
        cos, sin = np.cos(rate * tau)[:, None], np.sin(rate * tau)[:, None]
        position = ORBIT_RADIUS * (cos * overhead + sin * forward)
        velocity = ORBIT_RADIUS * rate * (cos * forward - sin * overhead)
        velocity -= np.cross([0.0, 0.0, EARTH_RATE], position)
        return _turn(position, -EARTH_RATE * tau), _turn(velocity, -EARTH_RATE * tau)

    def _time_overhead(self) -> float:
        """GPS seconds at the middle of the strip, between odd and even detectors' views."""
        lines = self.lines / 2 + np.mean(DETECTOR_LINES)
        return self.gps_seconds(self.start) + float(lines) * LINE_PERIOD

    def _wobble_at(self, t: FloatArray) -> FloatArray:
        """Roll, pitch and yaw (N, 3) [rad], sums of slow sines."""
        phase = np.random.default_rng(self.seed).uniform(0, 2 * np.pi, (3, 2, 1))
        period = np.array([[[4.1], [1.7]], [[3.3], [1.3]], [[5.9], [2.3]]])
        share = np.array([[0.7], [0.3]])
        angle = 2 * np.pi * (t - self._time_overhead()) / period + phase
        return np.asarray((share * np.sin(angle)).sum(1).T * (self.wobble / 786e3))


def _turn(vectors: FloatArray, angle: FloatArray) -> FloatArray:
    """Vectors (N, 3) turned about z by angles (N,) [rad]."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = vectors.T
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], -1)
