"""`--stac` and `l1bsr-geo stac`: every item that is written is valid and lies beside its file."""

import json
import sys

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from scipy.ndimage import gaussian_filter

import l1bsr_geo
from l1bsr_geo.cli.main import main
from l1bsr_geo.errors import BadOptionError, OutputExistsError
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.pipelines.bands import orthorectify_bands, register
from l1bsr_geo.simulation.skysat_collect import scene_on_map, write_skysat_collect
from tests.synthetic.stac_schemas import validate_offline

pytestmark = [
    pytest.mark.filterwarnings("ignore:no DEM"),
    pytest.mark.filterwarnings("ignore:.*does not say when it was taken"),
]


def write_bands(path, size=64, seed=0):
    rng = np.random.default_rng(seed)
    green = gaussian_filter(rng.normal(size=(size, size)), 1.5) * 1500 + 2000
    bands = np.stack([green] * 4) + rng.normal(size=(4, size, size)) * 10
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=size, width=size, dtype="uint16",
        crs="EPSG:32633", transform=Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as file:  # fmt: skip
        file.write(bands.astype(np.uint16))
        file.descriptions = ("B02", "B03", "B04", "B08")
    return path


def read_item(path):
    told = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert len(validate_offline(told)) >= 4  # STAC, projection, file, processing
    assert told["assets"]["image"]["href"] == f"./{path.name}"
    return told


@pytest.fixture(scope="module")
def bands(tmp_path_factory):
    return write_bands(tmp_path_factory.mktemp("bands") / "in.tif")


@pytest.fixture(scope="module")
def collect(tmp_path_factory):
    rng = np.random.default_rng(1)
    scene = scene_on_map(120 + 60 * gaussian_filter(rng.standard_normal((190, 230)), 2))
    folder = tmp_path_factory.mktemp("collect")
    return write_skysat_collect(folder, scene, frames=5, shape=(40, 56), pointing_error=0.0)


def test_a_super_resolved_raster(bands, tmp_path):
    path = l1bsr_geo.super_resolve(bands, tmp_path / "out.tif", model="l1bsr", stac=True)
    told = read_item(path)
    assert "model" in told["assets"]
    assert told["properties"]["mlm:name"] == "l1bsr"
    (link,) = told["links"]
    assert (path.parent / link["href"]).resolve() == bands.resolve()
    assert told["assets"]["image"]["raster:spatial_resolution"] == 5


@pytest.mark.parametrize("pipeline", [register, orthorectify_bands])
def test_other_products_have_no_network(bands, tmp_path, pipeline):
    told = read_item(pipeline(bands, tmp_path / "out.tif", stac=True))
    assert list(told["assets"]) == ["image"]


@pytest.mark.parametrize("ortho", [True, False])
def test_a_burst_with_its_layers(collect, tmp_path, ortho):
    layers = tmp_path / "layers.tif"
    path = l1bsr_geo.super_resolve(
        collect.folder, tmp_path / "out.tif", model="act", layers=layers, ortho=ortho, stac=True
    )
    told = read_item(path)
    said = told["properties"]
    assert (said["constellation"], said["processing:level"]) == (
        "skysat",
        "L1C" if ortho else "L1A",
    )
    assert (said["proj:code"] is None) == (not ortho)
    assert told["assets"]["layers"]["bands"][0]["name"]
    west, south, east, north = told["bbox"]
    assert 0 < east - west < 0.01
    assert 0 < north - south < 0.01
    asked = said["datetime"]
    with rasterio.open(path) as file:
        assert file.tags()["time"][:19] == asked[:19]


def test_denoised_frames(collect, tmp_path):
    network = DnCNN(channels=1, depth=2, width=8, name="dncnn-pan").eval()
    out = tmp_path / "out"
    options = {"method": "dncnn", "network": network, "stac": True}
    l1bsr_geo.denoise(collect.folder, out, **options)
    times = []
    for name in collect.names:
        told = read_item(out / f"{name}.tif")
        assert told["geometry"]["type"] == "Polygon"
        assert told["properties"]["processing:level"] == "L1A"
        assert "denoised by dncnn" in told["properties"]["processing:lineage"]
        (link,) = told["links"]
        assert (out / link["href"]).resolve() == (collect.folder / f"{name}.tif").resolve()
        times.append(told["properties"]["datetime"])
    assert len(set(times)) == 5
    l1bsr_geo.denoise(collect.folder, out, overwrite=True, **options)  # items are no strangers
    with pytest.raises(BadOptionError, match="describes TIFF"):
        l1bsr_geo.denoise(collect.folder, None, **options)


def test_what_is_there_is_refused_before_the_work(bands, tmp_path, monkeypatch):
    (tmp_path / "out.json").write_text("mine")
    monkeypatch.setattr("l1bsr_geo.pipelines.super_resolution.restore_bands", None)
    for options in ({}, {"overwrite": False}):
        with pytest.raises(OutputExistsError, match=r"out\.json: exists already"):
            l1bsr_geo.super_resolve(bands, tmp_path / "out.tif", stac=True, **options)
    with pytest.raises(BadOptionError, match="its STAC item has this name"):
        l1bsr_geo.super_resolve(bands, tmp_path / "new.json", stac=True)
    layers = tmp_path / "b.json"
    with pytest.raises(BadOptionError, match="is another output, too"):
        l1bsr_geo.super_resolve(bands, tmp_path / "b.tif", layers=layers, stac=True)
    for option in ("report", "uncertainty"):
        mine = {"dem": tmp_path / "out.json", option: tmp_path / "out.json"}
        with pytest.raises(BadOptionError, match="is an input, too"):
            l1bsr_geo.super_resolve(bands, tmp_path / "c.tif", overwrite=True, **mine)
    with pytest.raises(BadOptionError, match="counts the frames of a burst"):
        l1bsr_geo.super_resolve(bands, tmp_path / "c.tif", layers=tmp_path / "layers.tif")
    assert (tmp_path / "out.json").read_text() == "mine"


def test_in_a_batch(bands, tmp_path, monkeypatch, capsys):
    jobs = [{"input": str(bands), "output": f"{n}.tif"} for n in "ab"]
    document = {"defaults": {"stac": True, "model": "bicubic"}, "jobs": jobs}
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(document))
    run(monkeypatch, "batch", tmp_path / "jobs.yaml")
    for n in "ab":
        read_item(tmp_path / f"{n}.tif")
    assert "2 done" in capsys.readouterr().out
    (tmp_path / "a.json").unlink()  # as if the run had been killed before it was written
    run(monkeypatch, "batch", tmp_path / "jobs.yaml", "--resume")
    assert "a.tif is there, but not a.json; remove" in " ".join(capsys.readouterr().err.split())


def test_the_command(bands, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "rasters"
    folder.mkdir()
    for name in ("a", "b"):
        l1bsr_geo.super_resolve(bands, folder / f"{name}.tif", model="bicubic")
    words = ("--source", "https://example.org/items/1.json", "--time", "2024-07-14T10:46:27Z")
    run(monkeypatch, "stac", folder, *words)
    assert capsys.readouterr().out.split() == [str(folder / f"{n}.json") for n in "ab"]
    told = read_item(folder / "b.tif")
    assert told["links"][0]["href"] == "https://example.org/items/1.json"
    assert told["properties"]["datetime"] == "2024-07-14T10:46:27Z"
    for wrong, said in (
        ((folder / "a.tif",), "exists already"),
        ((tmp_path / "none.tif",), "there is no such file"),
        ((folder / "a.json",), "its STAC item has this name"),
        ((tmp_path,), "a folder without TIFF"),
        ((folder / "a.tif", "--time", "noon"), "expected a time"),
    ):
        with pytest.raises(SystemExit) as ended:
            call(monkeypatch, "stac", *wrong)
        assert ended.value.code == 2
        error = capsys.readouterr().err.strip()
        assert said in error
        assert "\n" not in error


def test_without_pystac_one_line_says_what_to_install(bands, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pystac", None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'l1bsr-geo\[stac\]'"):
        l1bsr_geo.super_resolve(bands, tmp_path / "out.tif", stac=True)
    assert list(tmp_path.iterdir()) == []


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["l1bsr-geo", *map(str, words)])
    main()


def run(monkeypatch, *words):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *words)
    assert ended.value.code == 0
