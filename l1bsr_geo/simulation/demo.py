"""A small product to try everything on, made in seconds: one detector, two granules, hills."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from l1bsr_geo.geometry.affine import lonlat_to_map
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.geometry.model import GeometryModel
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.overpass import Overpass
from l1bsr_geo.simulation.scenes import (
    TEN_METRE_BANDS,
    Bounds,
    procedural_scene,
    relief,
    write_dem,
)
from l1bsr_geo.simulation.sentinel2_product import write_l1b_product

DETECTOR = 5
CRS = "EPSG:32631"
OVERPASS = Overpass(lon=5.02, lat=44.75, detectors=(DETECTOR,), granules=2, granule_lines=648)
WINDOW = Window(900, 0, 720, 1296)


@dataclass(frozen=True)
class DemoProduct:
    """What the demonstration starts from.

    Attributes:
        product: the .SAFE folder.
        dem: heights above the ellipsoid, GeoTIFF.
        detector: the one that has pixels.
        lonlat: west, south, east, north of the pixels [degrees].
    """

    product: Path
    dem: Path
    detector: int
    lonlat: Bounds


def make_demo_product(folder: str | Path, seed: int = 0) -> DemoProduct:
    """Write a made-up product over hills of the Ardeche, and its DEM, into a folder.

    720 x 1296 pixels of detector 5 in B02, B03, B04 and B08, each band with its own parallax on
    relief of 150 to 900 m.

    Args:
        folder: made where it is not there.
        seed: of landscape, relief and noise.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    models = {(DETECTOR, band): OVERPASS.model(DETECTOR, band) for band in TEN_METRE_BANDS}
    west, south, east, north = lonlat = lonlat_bounds(models.values(), WINDOW, (0.0, 1000.0))
    hills = relief((west - 0.02, south - 0.02, east + 0.02, north + 0.02), seed)
    write_dem(folder / "demo_dem.tif", hills)
    scene = procedural_scene(map_bounds(models.values(), WINDOW, CRS, (0.0, 1000.0)), CRS, seed)
    with TemporaryDirectory() as metadata:
        write_metadata(Path(metadata), OVERPASS)
        product = write_l1b_product(
            folder, scene.seen_by(), models, metadata, window=WINDOW, elevation=hills, seed=seed
        )
    return DemoProduct(product, folder / "demo_dem.tif", DETECTOR, lonlat)


def lonlat_bounds(
    models: Iterable[GeometryModel], window: Window, heights: tuple[float, ...] = (0.0,)
) -> Bounds:
    """West, south, east, north [degrees] of what models see in a window of their pixels."""
    lon, lat = _outline(models, window, heights)
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def map_bounds(
    models: Iterable[GeometryModel],
    window: Window,
    crs: str,
    heights: tuple[float, ...] = (0.0,),
    margin: float = 60.0,
) -> Bounds:
    """The same in a map projection, with a margin [m], whole tens of metres."""
    e, n = lonlat_to_map(crs).transform(*_outline(models, window, heights))
    west, south = (10 * np.floor((v.min() - margin) / 10) for v in (e, n))
    east, north = (10 * np.ceil((v.max() + margin) / 10) for v in (e, n))
    return float(west), float(south), float(east), float(north)


def _outline(
    models: Iterable[GeometryModel], window: Window, heights: tuple[float, ...]
) -> np.ndarray:
    """Lon, lat (2, N) of nodes over the window, at each height, of each model."""
    x = window.col_off + np.linspace(0, window.width, 9)
    y = window.row_off + np.linspace(0, window.height, 9)
    places = [
        np.stack(model.localize(x[None, :], y[:, None], h)).reshape(2, -1)
        for model in models
        for h in heights
    ]
    return np.concatenate(places, 1)
