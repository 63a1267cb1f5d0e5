"""Write a true SkySat all-frames collect from any high-resolution map scene."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
import scipy.fft
from affine import Affine
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.affine import lonlat_to_map
from l1bsr_geo.geometry.elevation import Elevation, localize_on_terrain
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.pinhole import PinholeModel
from l1bsr_geo.geometry.rpc import RPCModel
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.simulation.bursts import camera_mtf, noise_sigma
from l1bsr_geo.simulation.rendering import FLAT
from l1bsr_geo.simulation.scenes import MapScene
from l1bsr_geo.simulation.skysat_index import write_frame_index
from l1bsr_geo.simulation.skysat_pass import SkySatPass, rotation_to_camera

StoredGeometry: TypeAlias = Literal["tags", "text", "pinhole"]
"""How a collect tells its geometry: RPC in the TIFF, ``_RPC.TXT``, or ``_pinhole.json``."""

SATURATED = 4095  # [DN] 12 bits
INTEGRATION_TIME = 0.46  # [ms] at exposure 1
BAND = "PAN"
_NODE_STEP = 8  # [px] between places on the terrain
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class SimulatedCollect:
    """A collect on disk and what is true of it.

    Attributes:
        folder: with the frames and frame_index.csv.
        names: of the frames, in order of time, without ending.
        cameras: true geometry of each.
        stored: geometry as the files tell it, with pointing errors.
        truth: the scene behind optics and pixel, DN at exposure 1: what a perfect result shows.
        exposures: as frame_index.csv tells, relative.
        true_exposures: as they were.
        gsd: [m].
    """

    folder: Path
    names: tuple[str, ...]
    cameras: tuple[PinholeModel, ...]
    stored: tuple[PinholeModel, ...]
    truth: MapScene
    exposures: tuple[float, ...]
    true_exposures: tuple[float, ...]
    gsd: float


def write_skysat_collect(
    folder: str | Path,
    scene: MapScene,
    *,
    frames: int = 15,
    shape: tuple[int, int] = (256, 320),
    elevation: Elevation = FLAT,
    geometry: Sequence[StoredGeometry] = ("tags",),
    pointing_error: float = 3.0,
    exposures: Sequence[float] = (1.0,),
    exposure_error: float = 0.02,
    noise: float = 1.0,
    satellite: str = "sc00108",
    camera: str = "c2",
    flight: SkySatPass | None = None,
    seed: int = 0,
) -> SimulatedCollect:
    """A folder as Planet delivers ``basic_l1a_all_frames``, of a scene that is known.

    Args:
        folder: made where it is not there.
        scene: band "PAN" (or its only band), DN at exposure 1, 1.5 times finer than the frames.
        frames: how many.
        shape: ``(height, width)`` of a frame; real ones have (1080, 2560).
        elevation: heights of the ground.
        geometry: in which ways it is stored.
        pointing_error: standard deviation of the stored geometry of each frame, per axis [px].
        exposures: relative; one for each frame, or some to draw from.
        exposure_error: relative, uniform, of what the table tells where there are several.
        noise: factor on the standard deviation of the SkySat noise.
        satellite: as in the names.
        camera: as in the names.
        flight: the pass; by default one that looks at the middle of the scene.
        seed: of everything random.

    Raises:
        BadInputError: the scene is too coarse, or does not cover all frames.
    """
    folder = Path(folder)
    if flight is None:
        flight = SkySatPass(*_middle(scene, elevation), frames, shape, seed=seed)
    pixel = scene.transform.a
    if pixel > flight.gsd / 1.5:
        raise BadInputError(
            f"the scene has pixels of {pixel:g} m; to render frames of {flight.gsd:.2f} m it needs "
            f"{flight.gsd / 1.5:.2f} m or finer"
        )
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 2])
    truth = seen_by_camera(scene, flight.gsd, flight.heading)
    told = exposures if len(exposures) == flight.frames else rng.choice(exposures, flight.frames)
    wrong = exposure_error if len(set(exposures)) > 1 else 0.0
    true = np.asarray(told) * (1 + rng.uniform(-wrong, wrong, flight.frames))
    stored = flight.pointing_errors(pointing_error)
    names = tuple(
        f"{_gps_seconds(t):.8f}_{satellite}_{camera}_PAN_i{i:010d}"
        for i, t in enumerate(flight.times)
    )
    for name, model, told_model, exposure in zip(names, flight.cameras, stored, true, strict=True):
        clean = np.float32(exposure) * view(truth, model, flight.shape, elevation)
        noisy = clean + noise_sigma(clean, noise) * rng.standard_normal(clean.shape, np.float32)
        pixels = np.clip(np.rint(noisy), 0, SATURATED).astype(np.uint16)
        rpc = None if set(geometry) == {"pinhole"} else RPCModel.fit(told_model, flight.shape)
        write_frame(folder / f"{name}.tif", pixels, rpc if "tags" in geometry else None)
        if rpc is not None and "text" in geometry:
            write_rpc_text(folder / f"{name}_RPC.TXT", rpc)
        if "pinhole" in geometry:
            write_pinhole(folder / f"{name}_pinhole.json", told_model, flight.shape)
    told = tuple(float(e) for e in told)
    milliseconds = [INTEGRATION_TIME * e for e in told]
    write_frame_index(folder / "frame_index.csv", flight, names, stored, milliseconds)
    return SimulatedCollect(
        folder,
        names,
        flight.cameras,
        stored,
        truth,
        told,
        tuple(float(e) for e in true),
        flight.gsd,
    )


def scene_on_map(
    image: npt.NDArray[np.generic],
    pixel: float = 0.5,
    lon: float = 5.37,
    lat: float = 43.29,
) -> MapScene:
    """An image that lies on no map (sensor geometry, a photograph) laid on the UTM zone of a place.

    Its values are stretched so that its 0.5 and 99.5 percentiles become 8 and 73 % of the range, as
    the brightness of real frames.

    Args:
        image: (rows, columns), north up.
        pixel: size given to its pixels [m].
        lon: of its middle [degrees].
        lat: of its middle [degrees].
    """
    values = np.asarray(image, np.float32)
    dark, bright = np.percentile(values, [0.5, 99.5])
    values = 0.08 + 0.65 * (values - dark) / max(float(bright - dark), 1e-6)
    there = AreaOfInterest(lon, lat, lon, lat)
    crs = f"EPSG:{query_utm_crs_info(datum_name='WGS 84', area_of_interest=there)[0].code}"
    e, n = (float(v) for v in lonlat_to_map(crs).transform(lon, lat))
    rows, columns = values.shape
    corner = Affine(pixel, 0, e - columns / 2 * pixel, 0, -pixel, n + rows / 2 * pixel)
    radiance = (FULL_SCALE * np.maximum(values, 0.01)).astype(np.float32)
    return MapScene(radiance[None], corner, crs, (BAND,))


def seen_by_camera(scene: MapScene, gsd: float, heading: float = 180.0) -> MapScene:
    """The scene behind optics and pixel of a camera: what its samples, and good results, show.

    Args:
        scene: one band.
        gsd: pixel size of the camera [m].
        heading: direction of its rows' order, clockwise from north [degrees].
    """
    if len(scene.bands) != 1:
        raise BadInputError(f"the scene has bands {', '.join(scene.bands)}; one was expected")
    margin = int(np.ceil(4 * gsd / scene.transform.a))
    padded = np.pad(scene.pixels[0], margin, mode="reflect")
    fast = [scipy.fft.next_fast_len(n, real=True) for n in padded.shape]
    padded = np.pad(padded, [(0, f - n) for f, n in zip(fast, padded.shape, strict=True)], "edge")
    per_pixel = gsd / scene.transform.a
    f_y, f_x = np.fft.fftfreq(fast[0])[:, None] * per_pixel, np.fft.rfftfreq(fast[1]) * per_pixel
    turn = np.radians(heading - 180)
    across, along = f_x * np.cos(turn) + f_y * np.sin(turn), f_y * np.cos(turn) - f_x * np.sin(turn)
    spectrum = scipy.fft.rfft2(padded) * camera_mtf(across, along).astype(np.float32)
    blurred = scipy.fft.irfft2(spectrum, fast)
    rows, columns = scene.pixels.shape[1:]
    inside = blurred[margin : margin + rows, margin : margin + columns]
    return replace(scene, pixels=np.asarray(inside, np.float32)[None], bands=(BAND,))


def view(
    truth: MapScene, camera: PinholeModel, shape: tuple[int, int], elevation: Elevation = FLAT
) -> npt.NDArray[np.float32]:
    """What a camera sees of a scene, (height, width) DN without noise.

    Raises:
        BadInputError: the scene does not cover the frame.
    """
    e, n = _places(truth.crs, camera, shape, elevation)
    pixels = truth.sample(BAND, e, n)
    if np.isnan(pixels).any():
        west, south, east, north = truth.bounds
        short = max(west - e.min(), e.max() - east, south - n.min(), n.max() - north)
        raise BadInputError(
            f"the scene ({east - west:.0f} x {north - south:.0f} m) does not cover all frames, it "
            f"ends up to {short:.0f} m too early; take fewer or smaller frames or a larger scene"
        )
    return pixels


def write_frame(path: Path, pixels: npt.NDArray[np.uint16], rpc: RPCModel | None) -> None:
    """A frame as TIFF, with the RPC in its tags or without."""
    rows, columns = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # as real frames
        with rasterio.open(
            path, "w", driver="GTiff", width=columns, height=rows, count=1, dtype="uint16",
            rpcs=None if rpc is None else _to_rasterio(rpc),
        ) as raster:  # fmt: skip
            raster.write(pixels, 1)


def write_rpc_text(path: Path, rpc: RPCModel) -> None:
    """An RPC as Planet's ``_RPC.TXT``: ``KEY: value``."""
    lines = [f"{k}_OFF: {v:.15g}" for k, v in rpc.offset.items()]
    lines += [f"{k}_SCALE: {v:.15g}" for k, v in rpc.scale.items()]
    for key in ("line_num", "line_den", "samp_num", "samp_den"):
        lines += [f"{key.upper()}_COEFF_{i}: {v:.15g}" for i, v in enumerate(getattr(rpc, key), 1)]
    path.write_text("\n".join(lines) + "\n")


def write_pinhole(path: Path, camera: PinholeModel, shape: tuple[int, int]) -> None:
    """A camera as Planet's ``_pinhole.json``, with its negative focal lengths."""
    rotation = rotation_to_camera(camera, shape)
    inner = camera.projection[:, :3] @ rotation.T
    extrinsic = np.eye(4)
    extrinsic[:3] = np.column_stack([rotation, -rotation @ camera.centre])
    x, y, z = (float(v) for v in camera.centre)
    facts = {
        "P_camera": (inner @ _FLIP[:3, :3]).tolist(),
        "P_intrinsic": _FLIP.tolist(),
        "P_extrinsic": extrinsic.tolist(),
        "P_projective": camera.projection.tolist(),
        "exterior_orientation": {
            "x_ecef_meters": x,
            "y_ecef_meters": y,
            "z_ecef_meters": z,
        },
        "height": shape[0],
        "width": shape[1],
    }
    path.write_text(json.dumps(facts, indent=1))


def _to_rasterio(rpc: RPCModel) -> RPC:
    return RPC(
        **{f"{k.lower()}_off": v for k, v in rpc.offset.items()},
        **{f"{k.lower()}_scale": v for k, v in rpc.scale.items()},
        line_num_coeff=rpc.line_num.tolist(),
        line_den_coeff=rpc.line_den.tolist(),
        samp_num_coeff=rpc.samp_num.tolist(),
        samp_den_coeff=rpc.samp_den.tolist(),
    )


def _middle(scene: MapScene, elevation: Elevation) -> tuple[float, float, float]:
    """Lon, lat and height of the scene's centre."""
    west, south, east, north = scene.bounds
    centre = (west + east) / 2, (south + north) / 2
    lon, lat = lonlat_to_map(scene.crs).transform(*centre, direction="INVERSE")
    return float(lon), float(lat), float(elevation.height(lon, lat))


def _places(
    crs: str, camera: PinholeModel, shape: tuple[int, int], elevation: Elevation
) -> tuple[FloatArray, FloatArray]:
    """Map coordinates (height, width) of the pixel centres [m], linear between nodes."""
    y, x = (np.arange(-(-n // _NODE_STEP) + 1) * float(_NODE_STEP) for n in shape)
    lon, lat, _ = localize_on_terrain(camera, x[None, :], y[:, None], elevation, tolerance=1e-4)
    places = np.stack(lonlat_to_map(crs).transform(lon, lat))
    for axis, count in ((1, shape[0]), (2, shape[1])):
        at = (np.arange(count) + 0.5) / _NODE_STEP
        k = at.astype(np.intp)
        weight = (at - k).reshape([-1 if a == axis else 1 for a in range(3)])
        first = np.take(places, k, axis)
        places = first + weight * (np.take(places, k + 1, axis) - first)
    return places[0], places[1]


def _gps_seconds(utc: datetime) -> float:
    """Seconds since the GPS epoch; 18 leap seconds since 2017."""
    return (utc - datetime(1980, 1, 6, tzinfo=UTC)).total_seconds() + 18
