"""A small product to try everything on, made in seconds: one detector, two granules, hills."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.overpass import Overpass
from l1bsr_geo.simulation.rendering import lonlat_bounds, map_bounds
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
