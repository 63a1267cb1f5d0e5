"""STAC items: valid by the official schemas, and true."""

import hashlib
import json
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    L1bsrGeoWarning,
    MissingInputError,
    OutputExistsError,
)
from l1bsr_geo.geometry.affine import lonlat_to_map
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.cog import write_cog
from l1bsr_geo.georef.stac import item_path, make_item, read_time, write_item
from l1bsr_geo.models.checkpoint import find_shipped
from l1bsr_geo.models.stored import hash_file
from tests.synthetic.stac_schemas import validate_offline

TIME = "2024-07-14T10:46:28.505696+00:00"
TAGS = {
    "software": "l1bsr_geo 0.1.0",
    "processed": "2026-11-23T16:20:47+00:00",
    "source": "S2A_PRODUCT.SAFE",
    "product": "S2A_PRODUCT",
    "terrain": "dem.tif",
    "platform": "S2A",
    "time": TIME,
    "detector": "05",
    "model": "l1bsr",
    "model_source": "a paper",
    "scale": "2",
    "tile_size": "512",
    "band_registration": "images",
}
EO = {"eo:common_name", "eo:center_wavelength"}  # of what the eo extension 2.0.0 has in bands
RASTER = {"raster:sampling", "raster:spatial_resolution", "raster:scale", "raster:offset"}


def shipped_tags(name="l1bsr"):
    return {"model": name, "weights_sha256": hash_file(find_shipped(name))}


def check(item):
    """As JSON, by the official schemas and by what eo and raster 2.0.0 ask."""
    document = json.loads(json.dumps(item.to_dict(), allow_nan=False))
    checked = validate_offline(document)
    assert checked[0].endswith("v1.1.0/item-spec/json-schema/item.json")
    told = document["stac_extensions"]
    parts = [document["properties"], *document["assets"].values()]
    parts += [band for part in parts for band in part.get("bands", ())]
    keys = {key for part in parts for key in part}
    for prefix, allowed in (("eo", EO), ("raster", RASTER)):
        used = {key for key in keys if key.startswith(f"{prefix}:")}
        assert used <= allowed
        assert bool(used) == any(f"/{prefix}/v2.0.0/" in uri for uri in told)
    others = [uri for uri in told if "/eo/" not in uri and "/raster/" not in uri]
    assert checked[1:] == others  # each has its schema here
    for prefix in ("proj", "file", "processing", "mlm"):
        used = any(key.startswith(f"{prefix}:") for key in keys)
        name = "projection" if prefix == "proj" else prefix
        assert used == any(f"/{name}/" in uri for uri in told)
    return document


@pytest.fixture
def cog(tmp_path, map_image):
    """A COG on a map, as `sr` writes it."""

    def make(tags=None, name="out.tif", **attrs):
        wavelengths = {"B02": 492.7, "B03": 559.8, "B04": 664.6}
        image = map_image(wavelengths=wavelengths, **attrs)
        return write_cog(image, tmp_path / name, tags=TAGS | (tags or {}))

    return make


def test_a_map(cog):
    path = cog(shipped_tags(), nodata=0, scale_factor=0.25, add_offset=-25.0, units="W m-2")
    item = make_item(path, source=path.parent / "input" / "S2A_PRODUCT.SAFE")
    told = check(item)
    assert told["id"] == "out"
    assert told["stac_version"] == "1.1.0"
    assert item.datetime == datetime.fromisoformat(TIME)
    said = told["properties"]
    assert (said["platform"], said["instruments"]) == ("sentinel-2a", ["msi"])
    assert said["processing:software"] == {"l1bsr_geo": "0.1.0"}
    assert said["processing:level"] == "L1C"
    assert "made of S2A_PRODUCT; bands registered by images" in said["processing:lineage"]
    assert said["created"] == "2026-11-23T16:20:47Z"
    assert said["l1bsr:detector"] == "05"
    assert said["proj:code"] == "EPSG:32633"
    with rasterio.open(path) as file:
        assert said["proj:shape"] == [file.height, file.width]
        assert Affine(*said["proj:transform"]) == file.transform
        assert said["proj:bbox"] == list(file.bounds)
    asset = told["assets"]["image"]
    assert asset["type"] == "image/tiff; application=geotiff; profile=cloud-optimized"
    assert asset["href"] == "./out.tif"
    assert asset["raster:spatial_resolution"] == 5
    assert asset["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert asset["file:size"] == path.stat().st_size
    blue = asset["bands"][0]
    assert (blue["name"], blue["eo:common_name"]) == ("B02", "blue")
    assert blue["eo:center_wavelength"] == pytest.approx(0.4927)  # [um]
    assert (blue["data_type"], blue["nodata"], blue["unit"]) == ("uint16", 0, "W m-2")
    assert (blue["raster:scale"], blue["raster:offset"]) == (0.25, -25)
    (link,) = told["links"]
    assert link["rel"] == "derived_from"
    assert (link["href"], link["title"]) == ("./input/S2A_PRODUCT.SAFE", "S2A_PRODUCT")


def test_its_outline_is_that_of_the_valid_pixels(cog):
    """A quarter of the image is a hole in the corner."""
    found = shapely.geometry.shape(make_item(cog()).geometry)
    place = lonlat_to_map("EPSG:32633").transform
    found = shapely.transform(found, lambda p: np.column_stack(place(p[:, 0], p[:, 1])))
    east, north, gone = 217 * 5, 333 * 5, (108 * 5, 166 * 5)
    truth = shapely.box(0, -north, east, 0) - shapely.box(0, -gone[1], gone[0], 0)
    moved = shapely.affinity.translate(truth, 5e5, 5e6)
    assert shapely.hausdorff_distance(found, moved) < 10  # [m], two pixels


def test_the_network_that_restored_it(cog):
    file = find_shipped("l1bsr")
    told = check(make_item(cog(shipped_tags())))
    said, asset = told["properties"], told["assets"]["model"]
    assert (said["mlm:name"], said["mlm:tasks"]) == ("l1bsr", ["super-resolution"])
    views, flow = said["mlm:input"]
    assert views["bands"] == ["B02", "B03", "B04", "B08"]
    assert views["value_scaling"] == [{"type": "scale", "value": 400.0}]
    assert flow["input"]["shape"][-3:] == [2, -1, -1]
    assert said["mlm:hyperparameters"] == {"scale": 2, "tile_size": 512}
    assert asset["href"].endswith("#l1bsr_geo/models/weights/l1bsr.safetensors")
    assert asset["file:checksum"] == "1220" + hash_file(file)
    assert asset["file:size"] == file.stat().st_size
    assert asset["mlm:total_parameters"] > 10_000
    assert asset["license"] == "Apache-2.0"
    assert "mlm:model" in asset["roles"]


def test_a_network_that_nobody_here_knows(cog):
    """It is named by its content: RFC 6920 gives this name for this hash in its section 8.1."""
    known = "7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069"
    told = check(make_item(cog({"model": "x", "weights_sha256": known})))
    assert told["assets"]["model"]["href"] == (
        "ni:///sha-256;f4OxZX_x_FO5LcGBSKHWXfwtSx-j1ncoSt3SABJtkGk"
    )
    assert told["properties"]["mlm:input"] == []


@pytest.mark.parametrize("tags", [{"model": "none"}, {"weights_sha256": "none"}])
def test_without_a_network_there_is_no_model(cog, tags):
    told = check(make_item(cog(tags)))
    assert list(told["assets"]) == ["image"]
    assert not any("/mlm/" in uri for uri in told["stac_extensions"])


def test_floats_without_data_and_unnamed_bands(tmp_path, map_image):
    image = map_image(dtype="float32")
    image.pixels.coords["band"] = ["1", "2", "3"]
    told = check(make_item(write_cog(image, tmp_path / "out.tif", tags=TAGS)))
    assert told["assets"]["image"]["bands"][0] == {
        "name": "1", "data_type": "float32", "nodata": "nan",
    }  # fmt: skip


@pytest.mark.parametrize("with_rpc", [False, True])
def test_sensor_geometry(tmp_path, make_source, with_rpc, view):
    """Control points, and an RPC at the height that the tags tell."""
    shape, attrs = (120, 100), {}
    if with_rpc:
        rpcs = straight_down(shape)
        attrs["rpcs"] = rpcs
    source = make_source(shape, **attrs)
    tags = TAGS | {"terrain": "constant 250 m"}
    path = write_cog(source.image, tmp_path / "out.tif", tags=tags)
    told = check(make_item(path))
    said = told["properties"]
    assert said["proj:code"] is None
    assert said["proj:shape"] == list(shape)
    assert "proj:transform" not in said
    assert said["processing:level"] == "L1B"
    found = shapely.geometry.shape(told["geometry"])
    if with_rpc:  # 0.01 degrees to the north for each 1000 m
        height, width = shape
        truth = shapely.box(15, 45.0025 - height * 1e-4, 15 + width * 1e-4, 45.0025)
    else:
        truth = GeoGrid(shape, view).footprint()
    assert shapely.hausdorff_distance(found, truth) < 2e-5
    assert told["assets"]["image"]["raster:spatial_resolution"] == pytest.approx(
        np.sqrt(11.1 * 7.9) if with_rpc else 5, rel=0.02
    )


def straight_down(shape):
    """An RPC of 1e-4 degrees to a pixel whose lines move north with the height."""
    height, width = shape
    terms = np.eye(20)
    line = -terms[2] + 0.01 / (height * 5e-5) * terms[3]
    return rasterio.rpc.RPC(
        line_off=height / 2 - 0.5, samp_off=width / 2 - 0.5,
        lat_off=45 - height * 5e-5, long_off=15 + width * 5e-5, height_off=0,
        line_scale=height / 2, samp_scale=width / 2,
        lat_scale=height * 5e-5, long_scale=width * 5e-5, height_scale=1000,
        line_num_coeff=list(line), line_den_coeff=list(terms[0]),
        samp_num_coeff=list(terms[1]), samp_den_coeff=list(terms[0]),
    )  # fmt: skip


def test_no_geometry_at_all(tmp_path, make_source):
    image = make_source((40, 50)).image
    nowhere = type(image)(image.pixels, GeoGrid((40, 50)), image.valid)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write_cog(nowhere, tmp_path / "out.tif", tags=TAGS)
    told = check(make_item(path))
    assert told["geometry"] is None
    assert "bbox" not in told


def test_companions_become_assets(cog, tmp_path):
    layers = cog({"model": "none"}, "layers.tif")
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "page.html"
    page.write_text("<p>figures</p>")
    item = make_item(cog(), companions={"layers": layers, "report": page})
    told = check(item)["assets"]
    assert told["layers"]["roles"] == ["metadata", "layers"]
    assert told["layers"]["proj:code"] == "EPSG:32633"
    assert (told["report"]["type"], told["report"]["href"]) == ("text/html", "./pages/page.html")


def test_when_it_was_taken(cog, tmp_path):
    unsaid = cog({"time": ""})
    with pytest.warns(L1bsrGeoWarning, match="does not say when it was taken"):
        assert make_item(unsaid).datetime == datetime(2026, 11, 23, 16, 20, 47, tzinfo=UTC)
    told = make_item(unsaid, time=datetime(2020, 1, 2))
    assert check(told)["properties"]["datetime"] == "2020-01-02T00:00:00Z"
    frame = cog({"time": ""}, "1341234567.25_s4_c1_PAN.tif")  # GPS seconds, 18 leap seconds
    assert make_item(frame).datetime == datetime(2022, 7, 7, 13, 9, 9, 250000, tzinfo=UTC)
    assert read_time("2020-01-02T03:04:05").tzinfo is UTC
    with pytest.raises(BadOptionError, match="expected a time such as"):
        read_time("yesterday")


def test_written_whole_or_not_at_all(cog, tmp_path):
    path = cog()
    item = make_item(path)
    place = write_item(item, item_path(path))
    assert place == tmp_path / "out.json"
    assert json.loads(place.read_text())["assets"] == check(item)["assets"]
    with pytest.raises(OutputExistsError, match="add --overwrite"):
        write_item(item, place)
    write_item(item, place, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.tif"]
    with pytest.raises(MissingInputError, match="does not exist"):
        write_item(item, tmp_path / "nowhere" / "out.json")


def test_what_is_no_raster(tmp_path):
    with pytest.raises(MissingInputError, match="there is no such file"):
        make_item(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(BadInputError, match="cannot be opened as a raster"):
        make_item(tmp_path / "text.tif")


def test_a_raster_of_others_is_described_as_far_as_it_tells(tmp_path):
    path = tmp_path / "theirs.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=30, width=30, dtype="int16",
        crs="EPSG:3035", transform=Affine(20, 0, 4e6, 0, -20, 3e6), nodata=-1,
    ) as file:  # fmt: skip
        file.write(np.ones((1, 30, 30), np.int16))
        file.update_tags(time="2021-05-06T07:08:09Z", secret="x")
    told = check(make_item(path))
    assert told["properties"]["datetime"] == "2021-05-06T07:08:09Z"
    assert told["links"] == []
    assert not any(key.startswith(("l1bsr:", "processing:")) for key in told["properties"])
    assert told["assets"]["image"]["type"] == "image/tiff; application=geotiff"
