"""A Sentinel-2 L1B product of two bands and a narrow strip, located by the instrument model."""

from pathlib import Path
from tempfile import TemporaryDirectory

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.demo import CRS, DETECTOR, OVERPASS
from l1bsr_geo.simulation.rendering import map_bounds
from l1bsr_geo.simulation.scenes import procedural_scene
from l1bsr_geo.simulation.sentinel2_product import write_l1b_product

BANDS = ("B02", "B03")
WINDOW = Window(1000, 0, 96, 648)


def write_small_product(folder: Path) -> Path:
    """Write it into a folder, which is made; 96 x 648 px of detector 5. Returns its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    models = {(DETECTOR, band): OVERPASS.model(DETECTOR, band) for band in BANDS}
    scene = procedural_scene(map_bounds(models.values(), WINDOW, CRS, (0.0, 0.0)), CRS, 0)
    with TemporaryDirectory() as metadata:
        write_metadata(Path(metadata), OVERPASS)
        return write_l1b_product(folder, scene.seen_by(), models, metadata, window=WINDOW)
