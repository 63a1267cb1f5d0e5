"""The command line, as a user meets it."""

import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from affine import Affine
from rio_cogeo.cogeo import cog_validate

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.pipelines.job import read_aoi


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
    assert tags["model"] == "l1bsr"
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
        (["sr", "{product}", "o.tif", "--model", "l1bsr-rcan"], "fetch"),
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
    from l1bsr_geo.cli import main as cli

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


def test_progress_on_a_terminal(demo, tmp_path):
    """A bar with throughput and remaining time, on a real pseudo-terminal."""
    west, south, *_ = demo.lonlat
    box = f"{west + 0.04},{south + 0.05},{west + 0.06},{south + 0.07}"
    command = [sys.executable, "-m", "l1bsr_geo", "sr", demo.product, tmp_path / "o.tif"]
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*map(str, command), "--aoi", box, "--height", "500"],
        stdout=slave,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    assert process.wait(60) == 0, shown.decode()
    assert b"super-resolving" in shown
    assert b"blocks/s" in shown


def test_models_commands(cli, tmp_path):
    environment = os.environ | {"L1BSR_GEO_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    listed = cli("models", "list", env=environment)
    assert listed.returncode == 0, listed.stderr
    for name in ("geometric", "bicubic", "l1bsr", "l1bsr-rcan", "csr", "GPL-3.0"):
        assert name in listed.stdout
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    refused = cli("models", "import", tmp_path / "bad.pt", env=environment)
    assert refused.returncode == 2
    assert "bad.pt" in refused.stderr
    declined = cli("models", "fetch", "l1bsr-rcan", env=environment, input="")
    assert declined.returncode == 2
    assert "GPL-3.0" in declined.stderr
    assert not (tmp_path / "cache").exists()


def test_register_and_ortho(cli, demo, tmp_path):
    west, south, *_ = demo.lonlat
    options = ["--aoi", f"{west + 0.04},{south + 0.05},{west + 0.06},{south + 0.07}"]
    options += ["--dem", demo.dem]
    for command in ("register", "ortho"):
        output = tmp_path / f"{command}.tif"
        done = cli(command, demo.product, output, *options)
        assert done.returncode == 0, done.stderr
        with rasterio.open(output) as dataset:
            assert dataset.res == (10.0, 10.0)
            assert dataset.count == 4
            assert dataset.dataset_mask().mean() > 240
    with rasterio.open(tmp_path / "register.tif") as a, rasterio.open(tmp_path / "ortho.tif") as b:
        # both put B03 where its own geometry says
        one, two = (d.read(2, window=d.window(*_common(a, b)), masked=True) for d in (a, b))
        assert np.ma.median(np.ma.abs(one.astype(float) - two)) <= 1


def _common(a, b):
    (l1, b1, r1, t1), (l2, b2, r2, t2) = a.bounds, b.bounds
    return max(l1, l2), max(b1, b2), min(r1, r2), min(t1, t2)


def test_geolocate(cli, demo, tmp_path):
    done = cli("geolocate", demo.product, "--output", tmp_path, "--bands", "B03", "--dem", demo.dem)
    assert done.returncode == 0, done.stderr
    grids = sorted(tmp_path.glob("GRANULE/*/GEO_DATA/*_B03.tif"))
    assert len(grids) == 2
    assert [str(p) for p in tmp_path.glob("DATASTRIP/*/GEO_DATA/*.vrt")] == done.stdout.split()
    again = cli("geolocate", demo.product, "--output", tmp_path, "--bands", "B03")
    assert again.returncode == 2


@pytest.mark.slow
def test_network_with_given_weights(cli, demo, tmp_path):
    """REC at full size with made-up weights, through the whole command."""
    import torch
    from safetensors.torch import save_file

    from l1bsr_geo.models.registry import MODELS

    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in MODELS["l1bsr-rcan"].shapes().items():
        value = torch.randn(shape, generator=generator)
        fan_in = value[0].numel() if value.ndim > 1 else 400.0
        tensors[name] = value * 0.35 / fan_in**0.5
    weights = tmp_path / "rec.safetensors"
    save_file(tensors, weights)
    west, south, *_ = demo.lonlat
    options = ["--aoi", f"{west + 0.045},{south + 0.05},{west + 0.052},{south + 0.055}"]
    options += ["--model", "l1bsr-rcan", "--weights", weights, "--dem", demo.dem]
    done = cli("sr", demo.product, tmp_path / "o.tif", *options)
    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "o.tif") as dataset:
        tags = dataset.tags()
        assert dataset.res == (5.0, 5.0)
        assert dataset.dataset_mask().mean() > 200
    assert tags["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert tags["band_registration"].startswith("whole pixels from instrument geometry")
    del tensors["head.0.bias"]
    save_file(tensors, weights)
    refused = cli("sr", demo.product, tmp_path / "p.tif", *options)
    assert refused.returncode == 2
    assert "head.0.bias" in refused.stderr


def test_location_grids_do_not_hide_a_dem(cli, demo, tmp_path):
    """Grids made flat are not used where the user gives a DEM."""
    product = tmp_path / demo.product.name
    shutil.copytree(demo.product, product)
    made = cli("geolocate", product)
    assert made.returncode == 0, made.stderr
    assert "every 100 m of error move the result by" in made.stderr
    west, south, *_ = demo.lonlat
    box = ["--aoi", f"{west + 0.04},{south + 0.05},{west + 0.05},{south + 0.06}"]
    for name, options in (("grids", []), ("dem", ["--dem", demo.dem])):
        done = cli("ortho", product, tmp_path / f"{name}.tif", *box, *options)
        assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "grids.tif") as dataset:
        assert dataset.tags()["geometry"] == "grids"
        assert dataset.tags()["terrain"] == "that of the location grids"
    with rasterio.open(tmp_path / "dem.tif") as dataset:
        assert dataset.tags()["geometry"] == "model"
        assert int(dataset.tags()["first_line"]) > 0
    forced = cli(
        "ortho", product, tmp_path / "o.tif", *box, "--dem", demo.dem, "--geometry", "grids"
    )
    assert "have no effect" in forced.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--detector", "13"],
        ["--tile", "0"],
        ["--dtype", "int8"],
        ["--height", "nan"],
        ["--resolution", "inf"],
        ["--geoid", "g.tif"],
        ["--magic"],
    ],
)
def test_wrong_options_get_one_line(cli, demo, tmp_path, arguments):
    done = cli("sr", demo.product, tmp_path / "o.tif", *arguments)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error:")
    assert not list(tmp_path.iterdir())


def test_metres_for_degrees_are_refused(cli, demo, tmp_path):
    options = ["--crs", "EPSG:4326", "--resolution", "5", "--dem", demo.dem]
    done = cli("sr", demo.product, tmp_path / "o.tif", *options)
    assert done.returncode == 2
    assert "units of the CRS" in done.stderr


def test_ortho_of_mixed_resolutions_and_turned_rasters(cli, tmp_path):
    transform = Affine.translation(600_000, 4_900_000) @ Affine.rotation(20) @ Affine.scale(10, -10)
    profile = {"driver": "GTiff", "width": 60, "height": 50, "count": 4, "dtype": "uint16"}
    with rasterio.open(
        tmp_path / "turned.tif", "w", crs="EPSG:32631", transform=transform, **profile
    ) as dataset:
        dataset.write(np.full((4, 50, 60), 500, np.uint16))
    done = cli("ortho", tmp_path / "turned.tif", tmp_path / "o.tif", "-v")
    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "o.tif") as dataset:
        assert dataset.transform.b == 0
        assert dataset.crs.to_epsg() == 32631


def test_areas_of_interest(tmp_path):
    square = [[[4, 44], [5, 44], [5, 45], [4, 45], [4, 44]]]
    polygon = {"type": "Polygon", "coordinates": square}
    feature = {"type": "Feature", "properties": {}, "geometry": polygon}
    empty = {"type": "Feature", "properties": {}, "geometry": None}
    collection = {"type": "FeatureCollection", "features": [empty, feature]}
    path = tmp_path / "area.geojson"
    for document in (polygon, feature, collection):
        path.write_text(json.dumps(document))
        assert read_aoi(str(path)).area == pytest.approx(1.0)
    assert read_aoi("4,44,5,45") == (4.0, 44.0, 5.0, 45.0)
    for text in ("{", "[]", '{"type": "Point", "coordinates": [4, 44]}', '{"type": "Feature"}'):
        path.write_text(text)
        with pytest.raises(BadInputError, match=r"area\.geojson"):
            read_aoi(str(path))
