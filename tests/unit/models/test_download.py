"""Downloads from a real server that cuts, refuses, redirects and changes its mind."""

import hashlib
import threading
import time

import numpy as np
import pytest

from l1bsr_geo.errors import BadOptionError, DownloadError
from l1bsr_geo.models.download import download, read_url
from tests.synthetic.file_server import FileServer

CONTENT = np.random.default_rng(0).bytes(700_000)
OTHER = np.random.default_rng(1).bytes(700_000)
KNOWN = {"sha256": hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FileServer({"/data.bin": CONTENT}).running() as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data.bin"


def left(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_without_a_hash_it_goes_on_only_where_the_server_names_the_version(server, target):
    server.etags["/data.bin"] = '"one"'
    server.cuts = [300_000]
    download(f"{server.url}/data.bin", target)
    assert target.read_bytes() == CONTENT
    assert server.asked[-1] == ("/data.bin", "bytes=300000-", '"one"')
    assert left(target) == ["data.bin"]


def test_without_a_hash_and_a_version_it_starts_over(server, target):
    server.cuts = [300_000]
    download(f"{server.url}/data.bin", target)
    assert server.ranges() == [None, None]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ['"two"', 'W/"two"', ""])
def test_two_versions_are_never_joined(server, target, tag):
    server.etags["/data.bin"] = '"one"'
    server.cuts = [300_000, 0, 0]
    with pytest.raises(DownloadError, match="run again to go on"):
        download(f"{server.url}/data.bin", target)
    server.files["/data.bin"], server.etags["/data.bin"] = OTHER, tag
    download(f"{server.url}/data.bin", target)
    assert target.read_bytes() == OTHER
    assert left(target) == ["data.bin"]


def test_a_part_of_another_file_is_found_out_by_the_hash(server, target):
    target.with_name("data.bin.part").write_bytes(OTHER[:1000])
    with pytest.raises(DownloadError, match=r"sha256 [0-9a-f]{64}, but [0-9a-f]{64} was pinned"):
        download(f"{server.url}/data.bin", target, KNOWN)
    assert left(target) == []
    download(f"{server.url}/data.bin", target, KNOWN)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, target):
    server.etags["/data.bin"] = '"one"'
    target.with_name("data.bin.part").write_bytes(CONTENT + b"more")
    target.with_name("data.bin.part-of").write_text('"one"')
    download(f"{server.url}/data.bin", target)
    assert target.read_bytes() == CONTENT


def test_a_busy_server_is_given_the_time_it_asks_for(server, target):
    server.refusals = [(429, {"Retry-After": "1"}), (503, {"Retry-After": "0"})]
    start = time.monotonic()
    download(f"{server.url}/data.bin", target, KNOWN)
    assert time.monotonic() - start >= 1
    assert len(server.asked) == 3


def test_a_server_that_asks_for_too_long_is_not_waited_for(server, target):
    server.refusals = [(429, {"Retry-After": "3600"})]
    with pytest.raises(DownloadError, match=r"429 .*Retry-After: 3600.*run again later"):
        download(f"{server.url}/data.bin", target, KNOWN)
    assert len(server.asked) == 1


def test_a_passing_failure_passes_and_a_lasting_one_is_told(server, target):
    server.refusals = [(502, {}), (500, {})]
    download(f"{server.url}/data.bin", target, KNOWN)
    server.refusals = [(500, {})] * 3
    with pytest.raises(DownloadError, match="answered 500 Internal Server Error; run again later"):
        download(f"{server.url}/data.bin", target.with_name("again"), KNOWN)


def test_what_is_not_there_is_told_at_once(server, target):
    with pytest.raises(DownloadError, match="answered 404 Not Found; look elsewhere"):
        download(f"{server.url}/gone.bin", target, KNOWN, by_hand="look elsewhere")
    assert len(server.asked) == 1
    assert left(target) == []


def test_redirections_keep_the_range_and_lead_nowhere_else(server, target):
    server.redirects["/moved.bin"] = f"{server.url}/data.bin"
    server.cuts = [300_000]
    download(f"{server.url}/moved.bin", target, KNOWN)
    assert server.ranges() == [None, None, "bytes=300000-", "bytes=300000-"]
    server.redirects["/moved.bin"] = "ftp://127.0.0.1/data.bin"
    with pytest.raises(DownloadError, match=r"leads to ftp://.*not safe"):
        download(f"{server.url}/moved.bin", target.with_name("again"), KNOWN)


def test_two_runs_do_not_write_one_file(server, target):
    begun, go_on = threading.Event(), threading.Event()

    def wait(have, total):
        begun.set()
        go_on.wait(20)

    first = threading.Thread(target=download, args=(f"{server.url}/data.bin", target, KNOWN, wait))
    first.start()
    begun.wait(20)
    with pytest.raises(BadOptionError, match="another run is fetching it"):
        download(f"{server.url}/data.bin", target, KNOWN)
    go_on.set()
    first.join()
    assert target.read_bytes() == CONTENT
    assert left(target) == ["data.bin"]


def test_a_listing_is_small(server):
    server.files["/list"] = b"x" * ((1 << 24) + 1)
    assert read_url(f"{server.url}/data.bin", "") == CONTENT
    with pytest.raises(DownloadError, match="a listing was wanted"):
        read_url(f"{server.url}/list", "")
