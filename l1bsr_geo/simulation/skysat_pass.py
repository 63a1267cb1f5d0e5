"""A made-up SkySat pass: where the camera is and looks at each frame.

The satellite flies on a circle and turns back while it does, so that the view moves over the ground
much slower than its foot point. Source of the figures: FORMATS of the real all-frames collect over
Uluru (2021-04-06) and the pinhole files of uw-cryo/skysat_stereo.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.ellipsoid import ecef_to_geodetic, geodetic_to_ecef
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.pinhole import PinholeModel
from l1bsr_geo.geometry.sentinel2 import rotation_yxz

FOCAL_LENGTH = 3.6 / 6.5e-6  # [px]
FRAME_SHAPE = (1080, 2560)  # of a real frame; the made-up ones are smaller by default
PERIOD = 0.0221  # [s] between frames
STEP = 57 / 1080  # of the frame's height, from frame to frame
GRAVITY = 3.986004418e14  # [m3/s2]


@dataclass(frozen=True)
class SkySatPass:
    """One camera's collect.

    Attributes:
        lon: what the middle frame looks at [degrees].
        lat: the same [degrees].
        h: height of the ground there [m above the ellipsoid].
        frames: how many.
        shape: ``(height, width)`` of a frame [px].
        start: UTC of the first frame.
        altitude: of the satellite above the ellipsoid [m].
        off_nadir: angle between the view and the vertical at the ground [degrees].
        azimuth: from the ground to the satellite, clockwise from north [degrees].
        heading: in which the view moves over the ground, clockwise from north [degrees]; at 180
            north is up in the frames.
        step: movement from frame to frame [px].
        unsteady: standard deviation of each frame's own pointing [px]: all sub-pixel phases occur.
        twist: of each frame's own turn about the line of sight [rad].
        seed: of both.
    """

    lon: float
    lat: float
    h: float = 0.0
    frames: int = 15
    shape: tuple[int, int] = (256, 320)
    start: datetime = datetime(2021, 4, 6, 4, 9, 9, 650466, tzinfo=UTC)
    altitude: float = 500e3
    off_nadir: float = 12.0
    azimuth: float = 100.0
    heading: float = 180.0
    step: float | None = None
    unsteady: float = 0.7
    twist: float = 5e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise BadOptionError(f"a collect of {self.frames} frames; at least 1 is needed")
        if not 0 <= self.off_nadir <= 50:
            raise BadOptionError(f"off_nadir is {self.off_nadir}; 0 to 50 degrees were expected")

    @property
    def times(self) -> tuple[datetime, ...]:
        """UTC of the frames."""
        return tuple(self.start + timedelta(seconds=i * PERIOD) for i in range(self.frames))

    @property
    def gsd(self) -> float:
        """Pixel size across the line of sight, of the middle frame [m]."""
        return float(np.linalg.norm(self._eye(0.0) - self._target(0.0)) / FOCAL_LENGTH)

    @cached_property
    def cameras(self) -> tuple[PinholeModel, ...]:
        """The true geometry of every frame."""
        rng = np.random.default_rng(self.seed)
        angles = np.column_stack(
            [
                self.unsteady / FOCAL_LENGTH * rng.standard_normal((self.frames, 2)),
                self.twist * rng.standard_normal(self.frames),
            ]
        )
        later = np.arange(self.frames) - (self.frames - 1) / 2
        return tuple(self._camera(n, turn) for n, turn in zip(later, angles, strict=True))

    def pointing_errors(self, pixels: float) -> tuple[PinholeModel, ...]:
        """The cameras as a product may tell them, each turned by so many pixels (deviation)."""
        rng = np.random.default_rng([self.seed, 1])
        angles = pixels / FOCAL_LENGTH * rng.standard_normal((self.frames, 3))
        angles[:, 2] = 0
        return tuple(
            turned(camera, angle, self.shape)
            for camera, angle in zip(self.cameras, angles, strict=True)
        )

    def _camera(self, later: float, angles: FloatArray) -> PinholeModel:
        eye, target = self._eye(later * PERIOD), self._target(later)
        ahead = self._ground_axes[0]
        z = (target - eye) / np.linalg.norm(target - eye)
        y = ahead - (ahead @ z) * z
        y /= np.linalg.norm(y)
        rotation = rotation_yxz(angles) @ np.stack([np.cross(y, z), y, z])
        return PinholeModel(_intrinsic(self.shape) @ np.column_stack([rotation, -rotation @ eye]))

    def _eye(self, seconds: float) -> FloatArray:
        """Where the satellite is, ITRF [m]."""
        ground, (ahead, _, up) = self._target(0.0), self._ground_axes
        east, north = self._east_north
        a, z = np.radians([self.azimuth, self.off_nadir])
        view = np.sin(z) * (np.sin(a) * east + np.cos(a) * north) + np.cos(z) * up
        radius = np.linalg.norm(ground) + self.altitude - self.h
        along = ground @ view  # |ground + d view| = radius
        eye = ground + (np.sqrt(along**2 + radius**2 - ground @ ground) - along) * view
        outward = eye / radius
        forward = ahead - (ahead @ outward) * outward
        forward /= np.linalg.norm(forward)
        angle = np.sqrt(GRAVITY / radius**3) * seconds
        return np.asarray(radius * (np.cos(angle) * outward + np.sin(angle) * forward))

    def _target(self, later: float) -> FloatArray:
        """What the frame so many after the middle one looks at, ITRF [m]."""
        at = geodetic_to_ecef(*(np.array(v) for v in (self.lon, self.lat, self.h)))
        if later == 0.0:
            return at
        step = self.shape[0] * STEP if self.step is None else self.step
        lon, lat, _ = ecef_to_geodetic(at + later * step * self.gsd * self._ground_axes[0])
        return geodetic_to_ecef(lon, lat, np.array(self.h))

    @property
    def _ground_axes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Ahead, right and up at the target, ITRF."""
        east, north = self._east_north
        heading = np.radians(self.heading)
        ahead = np.sin(heading) * east + np.cos(heading) * north
        up = np.cross(east, north)
        return ahead, np.cross(ahead, up), up

    @property
    def _east_north(self) -> tuple[FloatArray, FloatArray]:
        a, b = np.radians([self.lon, self.lat])
        east = np.array([-np.sin(a), np.cos(a), 0.0])
        return east, np.array([-np.sin(b) * np.cos(a), -np.sin(b) * np.sin(a), np.cos(b)])


def turned(camera: PinholeModel, angles: FloatArray, shape: tuple[int, int]) -> PinholeModel:
    """A camera turned in its own axes by (3,) angles [rad]: x, y, line of sight."""
    inner = _intrinsic(shape)
    return PinholeModel(inner @ rotation_yxz(angles) @ np.linalg.inv(inner) @ camera.projection)


def rotation_to_camera(camera: PinholeModel, shape: tuple[int, int]) -> FloatArray:
    """(3, 3) from ITRF to the camera: x right, y down, z ahead."""
    return np.asarray(np.linalg.inv(_intrinsic(shape)) @ camera.projection[:, :3], np.float64)


def _intrinsic(shape: tuple[int, int]) -> FloatArray:
    height, width = shape
    return np.array([[FOCAL_LENGTH, 0, width / 2], [0, FOCAL_LENGTH, height / 2], [0, 0, 1]])
