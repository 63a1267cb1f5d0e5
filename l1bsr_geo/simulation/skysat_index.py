"""The table of a SkySat collect, frame_index.csv, with its 23 columns.

Source of the columns: uw-cryo/skysat_stereo, notebooks/skysat_l1a_bundle_adjustment.ipynb.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from l1bsr_geo.geometry.ellipsoid import geodetic_to_ecef
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.pinhole import PinholeModel
from l1bsr_geo.geometry.sentinel2 import celestial_to_terrestrial, quaternion_of
from l1bsr_geo.simulation.overpass import EARTH, GPS_EPOCH
from l1bsr_geo.simulation.skysat_pass import SkySatPass, rotation_to_camera


def write_frame_index(
    path: Path,
    flight: SkySatPass,
    names: Sequence[str],
    cameras: Sequence[PinholeModel],
    milliseconds: Sequence[float],
) -> None:
    """Write the table.

    Args:
        path: of the file.
        flight: times and places.
        names: of the frames, without ending.
        cameras: geometry of the frames as the product knows it.
        milliseconds: integration times.
    """
    shape = flight.shape
    epoch = np.array([(t - GPS_EPOCH).total_seconds() + EARTH.gps_minus_utc for t in flight.times])
    to_eci = celestial_to_terrestrial(epoch, EARTH).swapaxes(1, 2)
    centres = np.stack([camera.centre for camera in cameras])
    to_ecef = np.stack([rotation_to_camera(camera, shape).T for camera in cameras])
    rows = []
    for i, name in enumerate(names):
        azimuth, elevation = _look(cameras[i], shape)
        rows.append(
            {
                "name": name,
                "datetime": flight.times[i].isoformat(timespec="microseconds"),
                "gsd": f"{flight.gsd:.6f}",
                "sat_az": f"{azimuth:.6f}",
                "sat_elev": f"{elevation:.6f}",
                **_pose("eci", to_eci[i] @ centres[i], to_eci[i] @ to_ecef[i]),
                **_pose("ecef", centres[i], to_ecef[i]),
                "bit_dpth": 16,
                "geom": _outline(cameras[i], shape),
                "integration_time_ms": f"{milliseconds[i]:.6f}",
                "filename": f"{name}.tif",
            }
        )
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _pose(frame: str, position: FloatArray, rotation: FloatArray) -> dict[str, str]:
    """Position [km] and quaternion, camera to frame."""
    x, y, z, w = quaternion_of(rotation[None])[0]
    kilometres = dict(zip("xyz", position / 1e3, strict=True))
    return {f"{k}_sat_{frame}_km": f"{v:.9f}" for k, v in kilometres.items()} | {
        f"q{k}_{frame}": f"{v:.12f}" for k, v in zip("wxyz", (w, x, y, z), strict=True)
    }


def _look(camera: PinholeModel, shape: tuple[int, int]) -> tuple[float, float]:
    """Azimuth and elevation of the satellite seen from the middle of the frame [degrees]."""
    lon, lat = camera.localize(shape[1] / 2, shape[0] / 2)
    to_satellite = camera.centre - geodetic_to_ecef(lon, lat, np.zeros_like(lon))
    a, b = np.radians([float(lon), float(lat)])
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    up = np.array([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)])
    e, n, u = (float(to_satellite @ axis) for axis in (east, np.cross(up, east), up))
    return np.degrees(np.arctan2(e, n)) % 360, np.degrees(np.arctan2(u, np.hypot(e, n)))


def _outline(camera: PinholeModel, shape: tuple[int, int]) -> str:
    """The footprint at height 0, upper left first, closed."""
    height, width = shape
    lon, lat = camera.localize([0.0, width, width, 0.0, 0.0], [0.0, 0.0, height, height, 0.0])
    return (
        "POLYGON ((" + ", ".join(f"{a:.9f} {b:.9f}" for a, b in zip(lon, lat, strict=True)) + "))"
    )
