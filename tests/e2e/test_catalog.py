"""Data by name, at the command line, with a real server and a data folder of its own."""

import hashlib
import io
import json
import os
import socket
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import yaml
from affine import Affine
from typer.testing import CliRunner

from l1bsr_geo.cli.catalog import app as catalog_app
from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    DownloadError,
    MissingInputError,
    OutputExistsError,
)
from l1bsr_geo.pipelines.batch_jobs import read_jobs
from l1bsr_geo.pipelines.catalog import add_source, list_catalog
from l1bsr_geo.pipelines.catalog_fetch import fetch_source
from l1bsr_geo.pipelines.catalog_stac import write_stac_catalog
from l1bsr_geo.pipelines.super_resolution import super_resolve
from l1bsr_geo.readers.data_catalog import find_entry, user_catalog
from l1bsr_geo.readers.sentinel2_l1b import read_detector_crop
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.skysat_collect import scene_on_map, write_skysat_collect
from tests.synthetic.file_server import FileServer
from tests.synthetic.small_product import write_small_product
from tests.synthetic.stac_schemas import validate_offline

CONTENT = np.random.default_rng(0).bytes(400_000)


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """The data folder, which is not there yet."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "L1BSR_GEO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("L1BSR_GEO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def server():
    with FileServer({"/data.bin": CONTENT}).running() as running:
        yield running


def zipped(members):
    """A .zip of {name: content}; a name may be a ZipInfo."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def written(data, name):
    return yaml.safe_load((data / "data_catalog.yaml").read_text())[name]


def visible(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_at_the_command_line_it_is_added_fetched_and_listed(server, data, cli):
    environment = {**os.environ, "COLUMNS": "200"}
    address = f"{server.url}/data.bin"
    added = cli("catalog", "add", "mine", address, "--licence", "MIT", env=environment)
    assert added.returncode == 0, added.stderr
    server.cuts = [150_000]
    fetched = cli("catalog", "fetch", "mine", env=environment)
    assert fetched.returncode == 0, fetched.stderr
    assert Path(fetched.stdout.strip()).read_bytes() == CONTENT
    assert "licence: MIT" in fetched.stderr
    listed = json.loads(cli("catalog", "list", "--json", env=environment).stdout)
    mine = next(one for one in listed if one["name"] == "mine")
    assert (mine["state"], mine["known_by"], mine["whose"]) == ("here", "recorded", "yours")
    refused = cli("catalog", "fetch", "s2_l1b_product", env=environment)
    assert refused.returncode == 2
    assert "on request" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_what_first_came_is_what_must_come_from_then_on(server, data):
    add_source("mine", f"{server.url}/data.bin")
    assert find_entry("mine").known_by == "none"
    path = fetch_source("mine")
    assert written(data, "mine")["metadata"]["fetched"]["sha256"] == {"data.bin": sha256(CONTENT)}
    path.unlink()
    server.files["/data.bin"] = CONTENT[::-1]
    with pytest.raises(DownloadError, match="was pinned"):
        fetch_source("mine")
    assert not path.exists()


def test_a_file_that_was_changed_is_found_out(server, data):
    add_source("mine", f"{server.url}/data.bin", sha256=sha256(CONTENT).upper())
    path = fetch_source("mine")
    assert fetch_source("mine") == path
    assert len(server.asked) == 1
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(BadInputError, match="was changed or damaged: remove it"):
        fetch_source("mine")
    assert path.read_bytes() == CONTENT[:-1]


def test_the_wrong_hash_leaves_nothing(server, data):
    add_source("mine", f"{server.url}/data.bin", sha256="0" * 64)
    with pytest.raises(DownloadError, match="thrown away"):
        fetch_source("mine")
    assert visible(data) == ["data_catalog.yaml"]


def test_an_archive_becomes_a_folder_in_one_step(server, data):
    server.files["/stacks.zip"] = zipped({"crop/0.npy": b"a" * 9, "crop/1.npy": b"b"})
    server.cuts = [40]
    add_source("stacks", f"{server.url}/stacks.zip", unpack_it=True)
    folder = fetch_source("stacks")
    assert visible(folder) == ["crop/0.npy", "crop/1.npy"]
    assert sorted(p.name for p in data.iterdir()) == ["data_catalog.yaml", "stacks"]
    assert find_entry("stacks").recorded == {"stacks.zip": sha256(server.files["/stacks.zip"])}
    assert fetch_source("stacks") == folder


def hostile_zip():
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped({"good": b"good", link: b"/etc"})


def hostile_tar(kind):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../outside" if kind == "outside" else "link")
        if kind == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(entry, io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.zip", zipped({"good": b"", "../outside": b"x"}), "'../outside' would land outside"),
        ("a.zip", zipped({"/etc/outside": b"x"}), "would land outside"),
        ("a.zip", hostile_zip(), "neither a file nor a folder"),
        ("a.zip", zipped({"good": b"x" * 9999})[:-60], "cannot be unpacked"),
        ("a.tgz", hostile_tar("outside"), "would land outside"),
        ("a.tgz", hostile_tar("link"), "neither a file nor a folder"),
        ("download", b"no archive", "cannot be unpacked"),
        ("a.zip", zipped({"good": b"", "good/inside": b""}), "cannot be unpacked"),
    ],
    ids=["up", "absolute", "link", "damaged", "tar-up", "tar-link", "no-archive", "file-as-folder"],
)
def test_an_archive_that_leaves_its_folder_is_refused(server, data, name, content, said):
    server.files[f"/{name}"] = content
    add_source("evil", f"{server.url}/{name}", unpack_it=True)
    with pytest.raises(BadInputError, match=said):
        fetch_source("evil")
    assert not (data / "evil").exists()
    assert not (data.parent / "outside").exists()
    assert not list(data.rglob("good"))
    server.files[f"/{name}"] = zipped({"good": b"good"})  # mended
    assert visible(fetch_source("evil")) == ["good"]


def record(server, files):
    """A Zenodo record, as its API tells it."""
    server.files |= {f"/files/{name}": content for name, content in files.items()}
    listed = [
        {
            "key": name,
            "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
            "links": {"self": f"{server.url}/files/{name}"},
        }
        for name, content in files.items()
    ]
    server.files["/api/records/1"] = json.dumps({"files": listed}).encode()


def test_a_zenodo_record_is_fetched_whole_by_its_own_hashes(server, data, tmp_path):
    catalog = tmp_path / "catalog.yaml"
    source = {
        "data_type": "RasterDataset",
        "uri": "pairs/**/*.tif",
        "driver": "rasterio",
        "metadata": {"fetch": {"zenodo": f"{server.url}/api/records/1", "unpack": True}},
    }
    catalog.write_text(yaml.safe_dump({"meta": {"roots": ["here"]}, "pairs": source}))
    files = {"train.zip": zipped({"t/0.tif": b"0"}), "readme.txt": b"read me"}
    record(server, files)
    server.files["/files/train.zip"] = files["train.zip"][::-1]
    with pytest.raises(DownloadError, match=r"md5 .* was pinned"):
        fetch_source("pairs", catalog=catalog)
    assert not (tmp_path / "here/pairs").exists()
    server.files["/files/train.zip"] = files["train.zip"]
    folder = fetch_source("pairs", catalog=catalog)
    assert visible(folder) == ["readme.txt", "train/t/0.tif"]
    assert find_entry("pairs", catalog).find() == [folder / "train/t/0.tif"]
    assert find_entry("pairs", catalog).recorded["train.zip"] == sha256(files["train.zip"])
    record(server, {"../x": b""})
    (tmp_path / "here/pairs").rename(tmp_path / "elsewhere")
    with pytest.raises(DownloadError, match=r"'\.\./x' by md5 is refused"):
        fetch_source("pairs", catalog=catalog)


def test_a_strangers_catalog_chooses_no_place_outside(server, tmp_path):
    catalog = tmp_path / "folder/catalog.yaml"
    catalog.parent.mkdir()
    for uri in ("../outside.bin", str(tmp_path / "outside.bin"), "."):
        source = {"uri": uri, "metadata": {"fetch": {"url": f"{server.url}/data.bin"}}}
        catalog.write_text(yaml.safe_dump({"evil": source}))
        with pytest.raises(BadInputError, match="what is fetched stays there"):
            fetch_source("evil", catalog=catalog)
    assert not (tmp_path / "outside.bin").exists()
    assert server.asked == []


def test_what_one_adds_is_what_batch_reads(data, tmp_path):
    with rasterio.open(
        tmp_path / "four.tif", "w", driver="GTiff", width=40, height=30, count=4, dtype="uint16",
        crs="EPSG:32631", transform=Affine(10, 0, 6e5, 0, -10, 5e6),
    ) as raster:  # fmt: skip
        raster.write(np.random.default_rng(0).integers(1, 900, (4, 30, 40), "uint16"))
        raster.descriptions = ("B02", "B03", "B04", "B08")
    told = CliRunner().invoke(
        catalog_app, ["add", "four", str(tmp_path / "four.tif"), "--set", "model=bicubic"]
    )
    assert told.exit_code == 0, told.output
    assert find_entry("four").driver == "rasterio"
    (job,) = read_jobs(user_catalog(), tmp_path / "out")
    (tmp_path / "out").mkdir()
    super_resolve(job.source, job.output, **job.options)
    with rasterio.open(job.output) as result:
        assert (result.shape, result.tags()["model"]) == ((60, 80), "bicubic")


def test_bad_additions_are_refused_and_change_nothing(data, tmp_path):
    with pytest.raises(MissingInputError, match="nothing is there"):
        add_source("mine", tmp_path / "gone.tif")
    for name in ("", "a/b", "{a}", ".."):
        with pytest.raises(BadOptionError, match="is no name"):
            add_source(name, tmp_path)
    with pytest.raises(BadOptionError, match="give an address"):
        add_source("mine", tmp_path, sha256="0" * 64)
    with pytest.raises(BadInputError, match="64 hexadecimal digits"):
        add_source("mine", "https://example.org/a.tif", sha256="12")
    told = CliRunner().invoke(catalog_app, ["add", "mine", str(tmp_path), "--set", "detectr=5"])
    assert isinstance(told.exception, BadOptionError)
    assert "detectr" in str(told.exception)
    assert not data.exists()
    add_source("mine", tmp_path)
    with pytest.raises(BadOptionError, match="has mine already"):
        add_source("mine", tmp_path)
    add_source("mine", tmp_path, notes="new", overwrite=True)
    assert written(data, "mine")["metadata"]["notes"] == "new"


def test_without_a_network_it_says_what_to_do(data):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody answers there
        add_source("mine", f"http://127.0.0.1:{taken.getsockname()[1]}/data.bin")
        with pytest.raises(DownloadError, match=r"cannot be reached.*mine/data\.bin") as told:
            fetch_source("mine")
    assert "\n" not in str(told.value)


def test_stac_holds_every_entry_and_items_where_data_are(data):
    product = write_small_product(data / "s2_l1b")
    scene = scene_on_map(made_city((420, 420), seed=2))
    write_skysat_collect(
        data / "skysat_l1a", scene, frames=3, shape=(64, 80), geometry=("text",), seed=3
    )
    root = write_stac_catalog(data / "stac")
    documents = {p: json.loads(p.read_text()) for p in (data / "stac").rglob("*.json")}
    for document in documents.values():
        assert validate_offline(document)
    names = {one.name for one in list_catalog()}
    collections = {d["id"]: d for d in documents.values() if d["type"] == "Collection"}
    assert set(collections) == names
    sample = collections["l1bsr_example_00"]["assets"]["00.tif"]
    assert sample["href"].startswith("https://raw.githubusercontent.com/centreborelli/L1BSR/")
    assert sample["file:checksum"].startswith("1220")
    items = {p: d for p, d in documents.items() if d["type"] == "Feature"}
    assert len(items) == 2
    for path, item in items.items():
        href = item["assets"]["data"]["href"]
        assert not href.startswith("/")
        assert (path.parent / href).resolve().exists()
    seen = next(d for d in items.values() if d["properties"]["platform"] == "sentinel-2a")
    grid = read_detector_crop(product, 5, ("B03",)).grids["B03"]
    lon, lat = grid.localize(48.0, 324.0)
    assert shapely.geometry.shape(seen["geometry"]).contains(shapely.Point(lon, lat))
    assert seen["properties"]["datetime"].startswith("2024-07-14T")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_stac_catalog(data / "stac")
    assert write_stac_catalog(data / "stac", ["sen2vm_tds1"], overwrite=True) == root
