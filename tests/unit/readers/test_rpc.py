"""RPC files of all vendors, and RPCs written into files as any GIS reads them."""

import warnings

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer
from rasterio.warp import Resampling, reproject
from scipy.ndimage import binary_erosion

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.geometry.ellipsoid import geodetic_to_ecef
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.pinhole import PinholeModel
from l1bsr_geo.geometry.rpc import RPCModel
from l1bsr_geo.georef.cog import write_cog
from l1bsr_geo.georef.orthorectify import orthorectify
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.readers.pinhole import read_pinhole
from l1bsr_geo.readers.rpc import find_rpc, from_rasterio, read_rpc, rpcs_of, to_rasterio

CURVES = ("line_num", "line_den", "samp_num", "samp_den")
PLANET = "rpc_PLANET_L1A.txt"
REAL = (
    "20191015_073816_ssc1d3_0011_basic_l1a_panchromatic_dn_RPC.TXT",
    "20200413_151408_ssc4d2_0011_basic_panchromatic_dn.rpc",
    "20200413_151408_ssc4d2_0011_basic_panchromatic_dn.rpc_adj",
    "rpc_IKONOS.txt",
    PLANET,
    "rpc_PLANET_L1B.txt",
    "rpc_PLEIADES.xml",
)


@pytest.fixture
def planet(shared) -> RPCModel:
    return read_rpc(shared / "data/rpc" / PLANET)


def same(a: RPCModel, b: RPCModel) -> bool:
    equal = all(np.array_equal(getattr(a, c), getattr(b, c)) for c in CURVES)
    return equal and a.offset == b.offset and a.scale == b.scale


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("h", [-100.0, 0.0, 500.0, 4000.0])
def test_real_files_there_and_back_and_as_gdal(shared, name, h):
    model = read_rpc(shared / "data/rpc" / name)
    assert same(from_rasterio(to_rasterio(model)), model)
    width, height = 2 * abs(model.scale["SAMP"]), 2 * abs(model.scale["LINE"])
    rng = np.random.default_rng(0)
    x = np.append(rng.uniform(0, width, 200), [0, width, 0, width])
    y = np.append(rng.uniform(0, height, 200), [0, 0, height, height])
    lon, lat = model.localize(x, y, h)
    np.testing.assert_allclose(model.project(lon, lat, h), (x, y), rtol=0, atol=1e-6)
    with RPCTransformer(to_rasterio(model)) as gdal:
        rows, cols = gdal.rowcol(lon, lat, zs=np.full_like(x, h), op=lambda v: v)
    np.testing.assert_allclose((cols, rows), (x, y), rtol=0, atol=1e-6)


def test_known_values(shared, planet):
    assert planet.scale["LAT"] == -0.0234
    folder = shared / "data/rpc"
    ikonos = read_rpc(folder / "rpc_IKONOS.txt")
    assert ikonos.offset == {
        "LINE": 5124,
        "SAMP": 6334,
        "LAT": -34.903,
        "LONG": -56.1722,
        "HEIGHT": 28,
    }
    assert ikonos.line_num[0] == -1.490910093701323e-03
    dimap = read_rpc(folder / "rpc_PLEIADES.xml")  # counts from 1
    assert (dimap.offset["LINE"], dimap.offset["SAMP"]) == (18087.5, 19999.5)
    # the same site: the two sensors' RPCs must lead to one region
    lon, lat = dimap.localize(20000, 18000, 70.0)
    x, y = ikonos.project(lon, lat, 70.0)
    assert 0 < x < 12668
    assert 0 < y < 10248


def rpb_text(model: RPCModel) -> str:
    keys = {"LINE": "line", "SAMP": "samp", "LAT": "lat", "LONG": "long", "HEIGHT": "height"}
    lines = ['satId = "QB02";', "BEGIN_GROUP = IMAGE", "\terrBias = 12.5;"]
    lines += [f"\t{key}Offset = {model.offset[axis]!r};" for axis, key in keys.items()]
    lines += [f"\t{key}Scale = {model.scale[axis]!r};" for axis, key in keys.items()]
    for curve, key in zip(CURVES, ("lineNum", "lineDen", "sampNum", "sampDen"), strict=True):
        listed = ",\n\t\t\t".join(f"{float(v)!r}" for v in getattr(model, curve))
        lines.append(f"\t{key}Coef = (\n\t\t\t{listed});")
    return "\n".join([*lines, "END_GROUP = IMAGE", "END;"])


def test_files_beside_an_image_come_before_its_tags(shared, planet, tmp_path):
    image = tmp_path / "frame.tif"
    tags = to_rasterio(planet.cropped(100, 0))
    with warnings.catch_warnings(action="ignore"), rasterio.open(
        image, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint16", rpcs=tags
    ):  # fmt: skip
        pass
    assert read_rpc(image).offset["SAMP"] == planet.offset["SAMP"] - 100
    text = (shared / "data/rpc" / PLANET).read_text()
    (tmp_path / "frame.RPB").write_text(rpb_text(planet.cropped(200, 0)))
    assert same(read_rpc(image), planet.cropped(200, 0))
    (tmp_path / "frame_RPC.TXT").write_text(text)
    assert same(read_rpc(image), planet)
    (tmp_path / "frame.rpc_adj").write_text(text.replace("LAT_OFF: -32.85", "LAT_OFF: -32.86"))
    found = find_rpc(image)
    assert found is not None
    assert found.offset["LAT"] == -32.86


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("SAMP_DEN_COEFF_7:", "SAMP_DEN_COEFF_77:"), "lacks 1 of the 90 .*SAMP_DEN_COEFF_7"),
        (("LAT_SCALE: -0.0234", "LAT_SCALE: 0"), "LAT_SCALE is 0"),
        (("_", "-"), r"lacks 90 of the 90 values of an RPC \(it is no RPC\)"),
    ],
)
def test_incomplete_files(shared, tmp_path, change, message):
    path = tmp_path / "a_RPC.TXT"
    path.write_text((shared / "data/rpc" / PLANET).read_text().replace(*change))
    with pytest.raises(BadInputError, match=message):
        read_rpc(path)


def test_no_rpc(tmp_path):
    with pytest.raises(MissingInputError, match="is not there"):
        read_rpc(tmp_path / "a_RPC.TXT")
    (tmp_path / "a.xml").write_text("<a")
    with pytest.raises(BadInputError, match="no valid xml"):
        read_rpc(tmp_path / "a.xml")
    (tmp_path / "a.txt").write_bytes(b"\0" * (2 << 20))
    with pytest.raises(BadInputError, match="a few thousand"):
        read_rpc(tmp_path / "a.txt")
    image = tmp_path / "b.tif"
    with rasterio.open(
        image, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint16",
        crs="EPSG:32631", transform=Affine(1, 0, 5e5, 0, -1, 5e6),
    ):  # fmt: skip
        pass
    with pytest.raises(MissingInputError, match=r"neither tags nor b_RPC\.TXT"):
        read_rpc(image)


def pinhole_camera() -> PinholeModel:
    """A SkySat camera 500 km up, looking 1.2 degrees to the north-east."""
    eye, target = (
        geodetic_to_ecef(*(np.array(v) for v in place))
        for place in ((2.0, 45.0, 500e3), (2.8, 46.0, 0.0))
    )
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, [0.3, 0.1, 1.0])
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    intrinsic = np.array([[553846.15, 0, 1280], [0, 553846.15, 540], [0, 0, 1]])
    return PinholeModel(intrinsic @ np.hstack([rotation, -(rotation @ eye)[:, None]]))


def smooth_image(grid: GeoGrid) -> GeoImage:
    height, width = grid.shape
    y, x = np.mgrid[:height, :width] + 0.5
    pixels = 1500 + 10 * x + 500 * np.sin(x / 60) + 500 * np.cos(y / 50)  # straight, to a kernel
    return GeoImage(
        xr.DataArray(pixels[None].astype(np.float32), dims=("band", "y", "x"),
                     coords={"band": ["PAN"]}),
        grid,
    )  # fmt: skip


@pytest.mark.parametrize("aligned", ["corner", "centre"])
@pytest.mark.parametrize("sensor", ["rpc", "pinhole"])
def test_a_gis_orthorectifies_what_is_written_as_we_do(planet, tmp_path, sensor, aligned):
    model = planet if sensor == "rpc" else pinhole_camera()
    grid = GeoGrid((1080, 2560), model).crop(Window(800, 300, 90, 70)).zoom(2, aligned)
    image = smooth_image(grid)
    rpcs = rpcs_of(grid)
    assert isinstance(rpcs, RPC)
    path = write_cog(
        GeoImage(image.pixels.assign_attrs(rpcs=rpcs), grid), tmp_path / "sensor.tif", tags={}
    )
    ours = orthorectify(image, elevation=ConstantElevation(250.0), kernel="bilinear")
    assert isinstance(ours.grid.model, AffineModel)
    assert ours.valid is not None
    gis = np.zeros(ours.grid.shape, np.float32)
    with rasterio.open(path) as written:
        assert written.rpcs is not None
        reproject(
            written.read(1), gis, rpcs=written.rpcs, src_crs="EPSG:4326", init_dest_nodata=False,
            dst_transform=ours.grid.model.transform, dst_crs=ours.grid.model.crs,
            resampling=Resampling.bilinear, RPC_HEIGHT="250", tolerance=0.0,
        )  # fmt: skip
    both = binary_erosion(ours.valid.values & (gis > 0), iterations=3)
    assert both.sum() > 0.5 * both.size
    difference = (gis - ours.pixels.values[0])[both]
    slopes = [g[both] for g in np.gradient(ours.pixels.values[0])]
    ones = np.ones_like(difference)
    shift, *_ = np.linalg.lstsq(np.stack([*slopes, ones], -1), difference, rcond=None)
    assert np.abs(shift[:2]).max() < 0.005  # [px] of the map, where GDAL puts what we put
    assert np.median(np.abs(difference)) < 0.5  # of slopes up to 18 DN/px; GDAL widens its kernel


def test_grids_that_no_rpc_can_say(planet):
    assert rpcs_of(GeoGrid((10, 10))) is None
    assert rpcs_of(GeoGrid((10, 10), planet, Affine.rotation(5))) is None
    mapped = GeoGrid((10, 10), AffineModel(Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32631"))
    assert rpcs_of(mapped) is None


def test_pinhole_files(tmp_path):
    camera = pinhole_camera()
    path = tmp_path / "a_pinhole.json"

    def write(text: str) -> None:
        path.write_text(text)

    flip = np.diag([-1.0, -1.0, 1.0])
    intrinsic = np.array([[553846.15, 0, 1280], [0, 553846.15, 540], [0, 0, 1]])
    extrinsic = np.vstack([flip @ np.linalg.inv(intrinsic) @ camera.projection, [0, 0, 0, 1]])
    factors = {
        "P_camera": (intrinsic @ flip).tolist(),
        "P_intrinsic": np.eye(4).tolist(),
        "P_extrinsic": extrinsic.tolist(),
    }
    write(str(factors).replace("'", '"'))
    np.testing.assert_allclose(
        read_pinhole(path).localize(100, 200, 50.0), camera.localize(100, 200, 50.0), atol=1e-10
    )
    whole = f'{{"P_projective": {camera.projection.tolist()}, "height": 1080, "width": 2560}}'
    write(whole)
    assert np.array_equal(read_pinhole(path, (1080, 2560)).projection, camera.projection)
    with pytest.raises(BadInputError, match="of 1080 x 2560 pixels, its frame of 40 x 60"):
        read_pinhole(path, (40, 60))
    for text in ("", "[]", '{"P_projective": [[1, 2], [3, 4]]}', '{"P_projective": "no"}'):
        write(text)
        with pytest.raises(BadInputError, match="holds no pinhole camera"):
            read_pinhole(path)
    past = [[1e3, 0, 0, 0], [0, 1e3, 0, 0], [0, 0, 1, -1e8]]  # the Earth is in its corner only
    write(f'{{"P_projective": {past}}}')
    with pytest.raises(BadInputError, match="does not look at the Earth"):
        read_pinhole(path, (1080, 2560))
    with pytest.raises(MissingInputError, match="is not there"):
        read_pinhole(tmp_path / "nowhere.json")
