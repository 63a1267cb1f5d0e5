"""The command line, as a user meets it."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate


def read(path):
    """Of a file that has no place on the ground, which rasterio warns of."""
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path) as dataset:
        return dataset.read(), dataset.dataset_mask() > 0, dataset.profile, dataset.tags()


@pytest.mark.parametrize("argument", [["-m", "l1bsr_geo", "--help"], ["-c", "import l1bsr_geo"]])
def test_answers_at_once_and_without_torch(argument):
    # -X importtime lists every module that gets imported
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *argument], capture_output=True, text=True, check=True
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "l1bsr_geo" in modules
    assert not modules & {"torch", "rasterio", "xarray", "dask", "numpy"}
    took = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *argument], capture_output=True, check=True)
        took.append(time.perf_counter() - start)
    assert min(took) < 1.0


def test_real_crop(cli, shared, tmp_path):
    output = tmp_path / "out.tif"
    source = shared / "data/l1bsr_examples/00.tif"
    done = cli("sr", source, output, "--sensor", "raster")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(output)
    assert "taken as B02, B03, B04, B08" in done.stderr
    pixels, valid, profile, tags = read(output)
    assert pixels.shape == (4, 704, 704)
    assert pixels.dtype == np.uint16
    assert valid[16:-16, 16:-16].all()  # bands are moved: none reaches beyond its own border
    assert valid.mean() > 0.98
    assert profile["tiled"]
    assert tags["model"] == "geometric"
    assert tags["band_registration"] == "images"
    assert list(tmp_path.iterdir()) == [output]
    again = cli("sr", source, output, "--sensor", "raster")
    assert again.returncode == 2
    assert again.stderr.strip().startswith("error:")
    assert "exists already" in again.stderr


def test_product_to_map(cli, demo, tmp_path):
    output = tmp_path / "sr.tif"
    west, south, *_ = demo.lonlat
    box = f"{west + 0.04},{south + 0.05},{west + 0.07},{south + 0.08}"
    done = cli("sr", demo.product, output, "--dem", demo.dem, "--aoi", box)
    assert done.returncode == 0, done.stderr
    valid_cog, errors, warnings = cog_validate(output, strict=True)
    assert valid_cog, (errors, warnings)
    with rasterio.open(output) as dataset:
        assert dataset.crs.to_epsg() == 32631
        assert dataset.res == (5.0, 5.0)
        assert dataset.transform.c % 5 == dataset.transform.f % 5 == 0
        assert dataset.descriptions == ("B02", "B03", "B04", "B08")
        assert dataset.units == ("W m-2 sr-1 um-1",) * 4
        tags = dataset.tags()
        assert dataset.dataset_mask().mean() > 250
        assert 1000 < dataset.width * 5 < 3500
    assert tags["platform"] == "S2A"
    assert tags["detector"] == "05"
    assert tags["geometry"] == "model"
    assert tags["terrain"] == "demo_dem.tif"
    assert tags["software"].startswith("l1bsr_geo ")
    flow = json.loads(tags["band_flow_median_px"])
    assert flow["B03"] == [0.0, 0.0]
    assert np.hypot(*flow["B02"]) > 1


def test_without_dem_warns_with_metres(cli, demo, tmp_path):
    west, south, *_ = demo.lonlat
    box = f"{west + 0.04},{south + 0.05},{west + 0.05},{south + 0.06}"
    done = cli("sr", demo.product, tmp_path / "o.tif", "--aoi", box)
    assert done.returncode == 0, done.stderr
    assert "every 100 m of error move the result by" in done.stderr


def test_sensor_geometry_keeps_control_points(cli, demo, tmp_path):
    west, south, *_ = demo.lonlat
    box = f"{west + 0.04},{south + 0.05},{west + 0.05},{south + 0.06}"
    output = tmp_path / "o.tif"
    done = cli(
        "sr",
        demo.product,
        output,
        "--aoi",
        box,
        "--dem",
        demo.dem,
        "--no-ortho",
        "--dtype",
        "float32",
    )
    assert done.returncode == 0, done.stderr
    with rasterio.open(output) as dataset:
        points, crs = dataset.gcps
        assert crs.to_epsg() == 4326
        assert len(points) >= 16
        assert dataset.dtypes[0] == "float32"
        assert west < points[0].x < west + 0.1


def test_info(cli, demo):
    done = cli("info", demo.product, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["platform"] == "S2A"
    assert facts["geometry"]["source"] == "model"
    assert list(facts["detectors"]) == ["05"]
    assert facts["radiometry"]["add_offset"]["B02"] == -100
    table = cli("info", demo.product)
    assert "S2A" in table.stdout


@pytest.mark.filterwarnings("default")  # a warning may come before the mistake is met
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sr", "nowhere.SAFE", "o.tif"], "nowhere.SAFE"),
        (["sr", "{product}", "nowhere/o.tif"], "does not exist"),
        (["sr", "{product}", "o.tif", "--detector", "7"], "detector 7"),
        (["sr", "{product}", "o.tif", "--bands", "B02,B03,B04,B11"], "B11"),
        (["sr", "{product}", "o.tif", "--bands", "red"], "red"),
        (["sr", "{product}", "o.tif", "--model", "magic"], "magic"),
        (["sr", "{product}", "o.tif", "--model", "l1bsr"], "fetch"),
        (["sr", "{product}", "o.tif", "--geometry", "grids"], "GEO_DATA"),
        (["sr", "{product}", "o.tif", "--aoi", "1,2,3"], "--aoi"),
        (["sr", "{product}", "o.tif", "--aoi", "80,10,81,11"], "does not touch"),
        (["sr", "{product}", "o.tif", "--aoi", "nowhere.geojson"], "no such file"),
        (["sr", "{product}", "o.tif", "--dem", "nowhere"], "nowhere"),
        (["sr", "{product}", "o.tif", "--gipp", "nowhere"], "nowhere"),
        (["sr", "{product}", "o.tif", "--crs", "EPSG:0"], "EPSG:0"),
        (["info", "."], "Sentinel-2 L1B"),
    ],
)
def test_mistakes_get_one_line(demo, tmp_path, monkeypatch, capsys, arguments, says):
    from l1bsr_geo import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path / "cache"))
    arguments = [a.format(product=demo.product) for a in arguments]
    monkeypatch.setattr(sys, "argv", ["l1bsr-geo", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, said
    assert says in errors[0]
    assert not list(tmp_path.glob("*o.tif*"))
