"""The catalog that ships is true, the user's comes first, and bad ones are refused in a line."""

import hashlib
import subprocess

import pytest
import yaml

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.models.entries import MODELS
from l1bsr_geo.models.published import SERVER
from l1bsr_geo.models.stored import find_cached, hash_git_blob
from l1bsr_geo.readers.catalog_writing import put_source
from l1bsr_geo.readers.data_catalog import (
    find_entry,
    missing_data,
    read_entries,
    shipped_catalog,
    user_catalog,
)


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.delenv("L1BSR_GEO_CACHE", raising=False)
    monkeypatch.setenv("L1BSR_GEO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_one_variable_moves_data_weights_and_catalog(data):
    assert user_catalog() == data / "data_catalog.yaml"
    assert find_cached("dsa").parent == data
    assert find_entry("sen2vm_tds1").place == data / "sen2vm_tds1"


def test_every_shipped_entry_says_where_it_is_from_and_how_it_is_checked():
    for entry in read_entries().values():
        assert entry.metadata["source_url"].startswith("https://"), entry.name
        assert "source_license" in entry.metadata, entry.name
        if entry.fetch is None:
            assert "access" in entry.metadata, entry.name
            continue
        assert (entry.fetch.zenodo is None) == bool(entry.fetch.files), entry.name
        for file in entry.fetch.files:
            assert file.url.startswith("https://"), entry.name
    unknown = {name for name, entry in read_entries().items() if entry.known_by == "none"}
    assert unknown == {
        *(f"l1bsr_example_0{i}" for i in range(5, 10)),
        "hdr_dsp_dataset",
        "dsa_self_dataset",
    }


def test_weights_are_those_that_models_fetch_knows():
    published = {name: entry.weights for name, entry in MODELS.items() if entry.weights}
    listed = {n: e for n, e in read_entries().items() if n.startswith("weights_")}
    assert set(listed) == {f"weights_{name}" for name in published}
    for name, weights in published.items():
        entry = listed[f"weights_{name}"]
        (file,) = entry.fetch.files
        assert entry.fetch.model == name
        assert file.url == f"{SERVER}/{weights.repository}/{weights.commit}/{weights.path}"
        assert file.known == {"git_blob": weights.git_blob}
        assert entry.licence == (weights.licence or "none stated")
        assert entry.place.name == find_cached(name).name


def test_hashes_are_those_of_the_real_files(shared):
    for i in range(5):
        (file,) = find_entry(f"l1bsr_example_{i:02d}").fetch.files
        content = (shared / f"data/l1bsr_examples/{i:02d}.tif").read_bytes()
        assert file.known == {"sha256": hashlib.sha256(content).hexdigest()}
    files = find_entry("sen2vm_tds1").fetch.files
    assert len(files) == 7
    for file in files:
        path = shared / "data/sen2vm_tds1/L1B_SAFE" / file.path
        assert file.known == {"git_blob": hash_git_blob(path)}
        assert file.url.endswith(f"/TDS1/L1B_all/{file.path}")


def test_git_blobs_are_gits_own(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 999)
    told = subprocess.run(
        ["git", "hash-object", "--no-filters", tmp_path / "file"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert hash_git_blob(tmp_path / "file") == told.stdout.strip()


def test_the_users_entry_hides_the_shipped_one(data):
    put_source(user_catalog(), "sen2vm_tds1", {"uri": "mine.tif", "driver": "rasterio"})
    entry = find_entry("sen2vm_tds1")
    assert (entry.catalog, entry.place) == (user_catalog(), data / "mine.tif")
    assert find_entry("sen2vm_tds1", shipped_catalog()).driver == "s2_l1b"
    with pytest.raises(BadOptionError, match=r"no 'l1bsr_exampel_00'; near it are l1bsr_"):
        find_entry("l1bsr_exampel_00")
    assert "catalog fetch l1bsr_example_00" in str(missing_data(find_entry("l1bsr_example_00")))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("[1]", "expected sources with uri"),
        ("a: {driver: x}", "a: has no uri"),
        ("a: {uri: x, metadata: {fetch: 3}}", "a.metadata.fetch: found 3"),
        ("a: {uri: x, metadata: {fetch: {sha256: '0'}}}", "expected url or zenodo"),
        ("a: {uri: x, metadata: {fetch: {url: u, zenodo: z}}}", "expected url or zenodo"),
        ("a: {uri: x, metadata: {fetch: {url: 'file:///etc/passwd'}}}", "expected an address"),
        ("a: {uri: x, metadata: {fetch: {url: 'https://a/{b}'}}}", "expected an address"),
        ("a: {uri: x, metadata: {fetch: {url: 'https://a/b', md5: 1}}}", "32 hexadecimal digits"),
        (
            "a: {uri: x, metadata: {fetch: {url: 'https://a/{path}', files: [{path: ../b}]}}}",
            "expected one inside its folder",
        ),
        ("a: {uri: x, metadata: {fetch: {url: 'https://a/', files: [b]}}}", "a list of path"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_no_catalog_is_refused(tmp_path, told, said):
    (tmp_path / "bad.yaml").write_text(told)
    with pytest.raises(BadInputError) as error:
        read_all(tmp_path / "bad.yaml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(MissingInputError, match="no such data catalog"):
        read_entries(tmp_path / "gone.yaml")


def read_all(path):
    """The entries with how they are fetched, which is read when it is asked for."""
    return [entry.fetch for entry in read_entries(path).values()]


def test_writing_keeps_what_a_person_wrote(tmp_path):
    path = tmp_path / "catalog.yaml"
    path.write_text(
        "# mine\nmeta: {name: x}\n\nfirst:  # the first\n  uri: 1.tif\n# of the second\n"
        "second: {uri: 2.tif}\n"
    )
    put_source(path, "third", {"uri": "3.tif", "metadata": {"notes": "ü: 'x' #"}})
    put_source(path, "first", {"uri": "new.tif"})
    text = path.read_text("utf-8")
    for kept in ("# mine\n", "# of the second\nsecond: {uri: 2.tif}\n"):
        assert kept in text
    assert "the first" not in text
    assert yaml.safe_load(text) == {
        "meta": {"name": "x"},
        "second": {"uri": "2.tif"},
        "third": {"uri": "3.tif", "metadata": {"notes": "ü: 'x' #"}},
        "first": {"uri": "new.tif"},
    }
    assert [p.name for p in tmp_path.iterdir()] == ["catalog.yaml"]


@pytest.mark.parametrize("text", ["{a: {uri: x}}", "a: {uri: x}\n...\n", "[1]", "a: ["])
def test_a_file_that_writing_would_spoil_stays_as_it_is(tmp_path, text):
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=r"catalog\.yaml"):
        put_source(path, "b", {"uri": "y"})
    assert path.read_text() == text
