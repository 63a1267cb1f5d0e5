"""End to end: a known pointing error of 8 m is taken out by a reference, through the command."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.geometry.rpc import RPCModel
from l1bsr_geo.geometry.sentinel2 import ViewingDirections
from l1bsr_geo.pipelines.bands import orthorectify_bands, register
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.overpass import ORBIT_RADIUS, Overpass
from l1bsr_geo.simulation.rendering import lonlat_bounds, map_bounds
from l1bsr_geo.simulation.scenes import MapScene, procedural_scene, relief, write_dem
from l1bsr_geo.simulation.sentinel2_product import write_l1b_product
from l1bsr_geo.simulation.skysat_collect import write_rpc_text, write_skysat_collect
from l1bsr_geo.simulation.skysat_pass import FOCAL_LENGTH, turned
from tests.synthetic.references import write_reference
from tests.synthetic.sentinelhub_server import CLIENT, SECRET, SentinelHubServer, make_item
from tests.synthetic.shifts import measure_shifts

BIAS = 8.0  # [m]
CRS = "EPSG:32631"
WINDOW = Window(1500, 100, 330, 330)


@dataclass(frozen=True)
class Biased:
    """A product whose satellite looked 8 m aside of what its metadata say."""

    product: Path
    folder: Path
    scene: MapScene
    area: str


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Biased:
    """Over relief; off along and across the track."""
    folder = tmp_path_factory.mktemp("refine")
    overpass = Overpass(5.02, 44.75, granules=1, granule_lines=648)
    angle = BIAS / (ORBIT_RADIUS - 6.371e6) * np.array([0.6, -0.8])
    told = {(5, band): overpass.model(5, band) for band in ("B03", "B04")}
    true = {}
    for key, model in told.items():
        seen = model.directions
        seen = ViewingDirections(seen.tan_x + angle[0], seen.tan_y + angle[1])
        true[key] = replace(model, directions=seen)
    west, south, east, north = lonlat_bounds(told.values(), WINDOW, (0.0, 1000.0))
    hills = relief((west - 0.02, south - 0.02, east + 0.02, north + 0.02), 3, 0.0, 1000.0)
    write_dem(folder / "dem.tif", hills)
    bounds = map_bounds(told.values(), WINDOW, CRS, (0.0, 1000.0), margin=300)
    scene = procedural_scene(bounds, CRS, seed=7).seen_by()
    write_metadata(folder / "metadata", overpass)
    safe = write_l1b_product(
        folder, scene, true, folder / "metadata", window=WINDOW, elevation=hills
    )
    area = ",".join(f"{v:.5f}" for v in lonlat_bounds(told.values(), WINDOW, (500.0,)))
    return Biased(safe, folder, scene, area)


def residual(path: Path, scene: MapScene, band: str, **options) -> np.ndarray:
    """Mean shift of a result from the scene (east, north) [m]."""
    with rasterio.open(path) as raster:
        index = raster.descriptions.index(band) + 1
        image, transform = raster.read(index, masked=True).astype(float), raster.transform
    shifts = measure_shifts(image.filled(-1), transform, scene, band, nodata=-1, **options)
    assert len(shifts) >= 4
    return shifts.mean(0) * (transform.a, transform.e)


def facts_of(path: Path) -> dict[str, str]:
    with rasterio.open(path) as raster:
        return {k: v for k, v in raster.tags().items() if k.startswith("refine_")}


@pytest.mark.parametrize("service", [False, True], ids=["file", "sentinelhub"])
def test_detector_over_relief(cli, product, tmp_path, service):
    """Against a map of another band, CRS, pixel and unit; against a service's image of that day."""
    options = ["--bands", "B03,B04", "--dem", product.folder / "dem.tif", "--aoi", product.area]
    output = tmp_path / "out.tif"
    if service:
        items = [make_item("that-day", "2024-07-14T10:50:31Z", 60.0, (4.0, 44.0, 6.0, 45.5))]
        hub = SentinelHubServer(product.scene.sample, CRS, {"sentinel-2-l1c": items})
        with hub.listen():
            done = cli(
                "ortho", product.product, output, *options, "--refine", "sentinelhub",
                env=os.environ | {
                    "XDG_CONFIG_HOME": str(hub.write_config(tmp_path)),
                    "L1BSR_GEO_DATA": str(tmp_path / "data"),
                    "SH_CLIENT_ID": CLIENT,
                    "SH_CLIENT_SECRET": SECRET,
                },
            )  # fmt: skip
        name = next((tmp_path / "data" / "references").iterdir()).name
    else:
        reference = write_reference(
            tmp_path / "map.tif", product.scene, "B04", crs="EPSG:2154", pixel=8.0, gain=7.0
        )
        done = cli("ortho", product.product, output, *options, "--refine", reference)
        name = "map.tif"
    assert done.returncode == 0, done.stderr
    facts = facts_of(output)
    assert facts["refine_reference"] == name
    moved = json.loads(facts["refine_shift_m"])
    assert np.hypot(*moved) == pytest.approx(BIAS, abs=0.4)
    assert np.abs(moved).min() > 3  # in both axes
    for band in ("B03", "B04"):
        left = residual(output, product.scene, band)
        assert np.abs(left).max() < 0.5  # measured: 0.2
    assert max(json.loads(facts["refine_uncertainty_m"])) < 0.2
    assert 6 <= int(facts["refine_matches"]) <= int(facts["refine_patches"])


@pytest.mark.filterwarnings("ignore:no DEM")
def test_mistakes_are_found_before_anything_is_computed(product, tmp_path):
    output = tmp_path / "out.tif"
    plane = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint8"}
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        rasterio.open(tmp_path / "plain.tif", "w", **plane).close()
    for refine, kind, says in (
        (tmp_path / "nowhere.tif", MissingInputError, "is not there; give an ortho image"),
        (tmp_path / "plain.tif", BadInputError, "is on no map"),
        (product.product, BadInputError, "MTD_MSIL1C.xml"),
    ):
        with pytest.raises(kind, match=says):
            orthorectify_bands(product.product, output, bands=("B03",), height=500, refine=refine)
    with pytest.raises(BadInputError, match="no geometry"):
        register(tmp_path / "plain.tif", output, bands=["B03"], refine=tmp_path / "plain.tif")
    (tmp_path / "plain.tif").replace(output)
    with pytest.raises(BadOptionError, match="is an input, too"):
        orthorectify_bands(product.product, output, bands=("B03",), refine=output, overwrite=True)
    assert list(tmp_path.iterdir()) == [output]


def test_burst(cli, tmp_path):
    """RPCs of all frames are off alike; the reference is coarser, and its contrast inverted."""
    pixels = made_city((1200, 1200), seed=1)[None]
    scene = MapScene(pixels, Affine(0.5, 0, 500_000, 0, -0.5, 4_500_000), CRS, ("PAN",))
    made = write_skysat_collect(
        tmp_path / "collect",
        scene,
        frames=3,
        shape=(224, 288),
        pointing_error=0,
        geometry=("text",),
    )
    angles = BIAS / made.gsd / FOCAL_LENGTH * np.array([0.6, -0.8, 0.0])
    for name, camera in zip(made.names, made.cameras, strict=True):
        told = RPCModel.fit(turned(camera, angles, (224, 288)), (224, 288))
        write_rpc_text(made.folder / f"{name}_RPC.TXT", told)
    reference = write_reference(
        tmp_path / "reference.tif", made.truth, "PAN", pixel=1.2, gain=-2.0, offset=9000, margin=10
    )
    output = tmp_path / "out.tif"
    done = cli("sr", made.folder, output, "--model", "act", "--height", "0", "--refine", reference)
    assert done.returncode == 0, done.stderr
    assert np.abs(residual(output, made.truth, "PAN", size=64)).max() < 0.5  # measured: 0.02
    facts = facts_of(output)
    assert np.hypot(*json.loads(facts["refine_shift_m"])) == pytest.approx(BIAS, abs=0.8)
