import numpy as np
import pytest

from l1bsr_geo.errors import GeometryWarning
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.readers.sentinel2_l1b import read_detector_crop
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.overpass import Overpass
from l1bsr_geo.simulation.rendering import map_bounds
from l1bsr_geo.simulation.scenes import procedural_scene
from l1bsr_geo.simulation.sentinel2_product import write_l1b_product
from tests.synthetic.eopf_zarr import write_eopf_zarr

WINDOW = Window(1000, 600, 120, 90)


def test_the_zarr_twin_reads_as_the_safe_product(tmp_path):
    overpass = Overpass(5.0, 45.0, granule_lines=648)
    write_metadata(tmp_path / "metadata", overpass)
    models = {(5, b): overpass.model(5, b) for b in ("B03", "B04")}
    scene = procedural_scene(map_bounds(models.values(), WINDOW, "EPSG:32631"), "EPSG:32631")
    safe = write_l1b_product(
        tmp_path, scene.seen_by(), models, tmp_path / "metadata", window=WINDOW
    )
    store = write_eopf_zarr(tmp_path / "twin.zarr", safe, models)
    one = read_detector_crop(safe, 5, ("B04", "B03"))
    with pytest.warns(GeometryWarning, match="footprint"):
        two = read_detector_crop(store, 5, ("B04", "B03"))
    assert two.add_offset == one.add_offset
    for band in one.bands:
        pixels = one.sources[band].read(WINDOW)
        assert pixels.min() > 0
        assert np.array_equal(pixels, two.sources[band].read(WINDOW))
