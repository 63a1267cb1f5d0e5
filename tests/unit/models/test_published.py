"""Fetching, from a real server on this machine."""

import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import safetensors.torch
import torch

from l1bsr_geo.errors import BadOptionError, DownloadError, WeightsError
from l1bsr_geo.models.published import fetch, import_weights
from l1bsr_geo.models.rcan import REC
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.models.stored import find_cached, hash_file, hash_git_blob


class Server:
    """Serves one file under any path; ``cuts`` says after how many bytes to hang up, in turn."""

    def __init__(self, content):
        self.content, self.cuts, self.ranges, self.paths = content, [], [], []
        self.takes_ranges = True
        server = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                server.paths.append(self.path)
                start = self.headers.get("Range")
                server.ranges.append(start)
                first = 0
                if start and server.takes_ranges:
                    first = int(start.removeprefix("bytes=").removesuffix("-"))
                    if first >= len(server.content):
                        self.send_error(416)
                        return
                    self.send_response(206)
                else:
                    self.send_response(200)
                body = server.content[first:]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.http.shutdown()
            thread.join()
            self.http.server_close()


def small_rec():
    return REC(groups=1, blocks=1, width=16, reduction=4)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("L1BSR_GEO_WEIGHTS_URL", raising=False)
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path, random_weights):
    path = tmp_path / "published.pt"
    torch.save({"state_dict": random_weights(small_rec())}, path)
    return path


@pytest.fixture
def server(checkpoint, monkeypatch):
    """The published weights of a small REC that stands in the registry for the large one."""
    entry = MODELS["l1bsr-rcan"]
    weights = replace(entry.weights, git_blob=hash_git_blob(checkpoint))
    monkeypatch.setitem(MODELS, "l1bsr-rcan", replace(entry, build=small_rec, weights=weights))
    with Server(checkpoint.read_bytes()).running() as running:
        yield running


def left(cache):
    return sorted(p.name for p in cache.iterdir())


def test_what_was_fetched_runs(server, cache, checkpoint):
    told = []
    path = fetch("l1bsr-rcan", True, base_url=server.url, progress=lambda *n: told.append(n))
    commit = MODELS["l1bsr-rcan"].weights.commit
    assert server.paths == [f"/centreborelli/L1BSR/{commit}/trained_models/REC_Real_L1B.pt"]
    assert told[-1] == (len(server.content), len(server.content))
    assert path == find_cached("l1bsr-rcan")
    assert left(cache) == ["l1bsr-rcan.json", "l1bsr-rcan.safetensors"]
    record = json.loads((cache / "l1bsr-rcan.json").read_text())
    assert record["sha256"] == hash_file(path)
    assert record["git_blob"] == hash_git_blob(checkpoint)
    assert record["licence"] == "GPL-3.0"
    assert record["source"].startswith(server.url)
    fetched, given = Model("l1bsr-rcan"), Model("l1bsr-rcan", weights=checkpoint)
    assert fetched.licence == given.licence == "GPL-3.0"
    assert fetched.weights_sha256 == record["sha256"]
    x = np.random.default_rng(0).uniform(0, 900, (1, 1, 4, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(fetched.restore(x), given.restore(x))


def test_what_is_there_is_not_fetched_again(server, cache):
    assert fetch("l1bsr-rcan", True, base_url=server.url) == fetch(
        "l1bsr-rcan", True, base_url=server.url
    )
    assert len(server.paths) == 1


def test_the_environment_names_a_mirror(server, cache, monkeypatch):
    monkeypatch.setenv("L1BSR_GEO_WEIGHTS_URL", server.url + "/")
    assert fetch("l1bsr-rcan", True, cache=cache / "other").parent == cache / "other"


def test_a_broken_download_goes_on_where_it_stopped(server, cache):
    server.cuts = [1000, 500]
    assert fetch("l1bsr-rcan", True, base_url=server.url).is_file()
    assert server.ranges == [None, "bytes=1000-", "bytes=1500-"]


def test_it_goes_on_in_the_next_run_too(server, cache):
    server.cuts = [1000, 0, 0]
    with pytest.raises(DownloadError, match=r"1000 of \d+ bytes came\); run again"):
        fetch("l1bsr-rcan", True, base_url=server.url)
    assert left(cache) == ["l1bsr-rcan-REC_Real_L1B.pt.part"]
    assert fetch("l1bsr-rcan", True, base_url=server.url).is_file()
    assert server.ranges[-1] == "bytes=1000-"
    assert left(cache) == ["l1bsr-rcan.json", "l1bsr-rcan.safetensors"]


def test_a_part_that_is_already_whole_is_taken(server, cache):
    cache.mkdir()
    (cache / "l1bsr-rcan-REC_Real_L1B.pt.part").write_bytes(server.content)
    assert fetch("l1bsr-rcan", True, base_url=server.url).is_file()


def test_a_server_that_knows_no_ranges_starts_over(server, cache):
    server.takes_ranges = False
    server.cuts = [1000]
    assert fetch("l1bsr-rcan", True, base_url=server.url).is_file()


def test_another_file_is_refused_and_nothing_is_left(server, cache):
    server.content = server.content[:-9] + b"\1" + server.content[-8:]
    with pytest.raises(DownloadError, match=r"git blob [0-9a-f]{40}, but [0-9a-f]{40} was pinned"):
        fetch("l1bsr-rcan", True, base_url=server.url)
    assert left(cache) == []


def test_the_licence_is_shown_and_asked(server, cache):
    shown = []
    with pytest.raises(BadOptionError, match=r"GPL-3.0 .* the licence was not accepted"):
        fetch("l1bsr-rcan", lambda text: bool(shown.append(text)), base_url=server.url)
    assert "centreborelli/L1BSR" in shown[0]
    with pytest.raises(BadOptionError, match="not accepted"):
        fetch("l1bsr-rcan", False, base_url=server.url)
    assert server.paths == []
    assert not cache.exists()
    assert fetch("l1bsr-rcan", lambda _: True, base_url=server.url).is_file()


def test_the_wrong_network_is_refused_and_nothing_is_left(server, cache, monkeypatch):
    monkeypatch.setitem(
        MODELS,
        "l1bsr-rcan",
        replace(MODELS["l1bsr-rcan"], build=lambda: REC(1, 1, width=32, reduction=4)),
    )
    with pytest.raises(WeightsError, match=r"head\.0\.weight .* 32 x 4 x 3 x 3, found 16 x 4"):
        fetch("l1bsr-rcan", True, base_url=server.url)
    assert left(cache) == []


def test_without_a_network_it_says_what_to_do(cache):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody answers there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(DownloadError, match=r"cannot be reached.*--weights") as error:
            fetch("l1bsr-rcan", True, base_url=url)
    assert "\n" not in str(error.value)
    assert left(cache) == []


def test_a_file_that_is_gone_is_told_with_its_status(server, cache):
    class Gone(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    server.http.RequestHandlerClass = Gone
    with pytest.raises(DownloadError, match="the server answered 404"):
        fetch("l1bsr-rcan", True, base_url=server.url)
    assert left(cache) == []


def test_other_addresses_and_untrained_models_are_refused(cache, tmp_path):
    with pytest.raises(BadOptionError, match="https or http only"):
        fetch("l1bsr-rcan", True, base_url=tmp_path.as_uri())
    with pytest.raises(BadOptionError, match="not trained"):
        fetch("bicubic", True)


def test_import_finds_the_model_by_its_parameters(server, cache, checkpoint, random_weights):
    path = import_weights(checkpoint)
    assert path == find_cached("l1bsr-rcan")
    assert Model("l1bsr-rcan").licence == "GPL-3.0"  # the content is the published one
    ours = cache / "ours.safetensors"
    safetensors.torch.save_file(
        random_weights(MODELS["csr"].trained_part(MODELS["csr"].build())),
        ours,
        metadata={"licence": "MIT"},
    )
    assert import_weights(ours) == find_cached("csr")
    assert Model("csr").licence == "MIT"


def test_import_of_something_else_names_what_differs(server, cache, tmp_path, random_weights):
    state = random_weights(small_rec())
    state["tail.1.bias"] = torch.ones(5)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"nearest network: tail\.1\.bias .* 4, found 5"):
        import_weights(tmp_path / "x.pt")
    torch.save({"conv.weight": torch.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(
        WeightsError, match=r"none of l1bsr, l1bsr-rcan, csr, .*; its first .* conv\.weight"
    ):
        import_weights(tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="convPool1"):
        import_weights(tmp_path / "x.pt", "csr-hourglass")
    with pytest.raises(BadOptionError, match="takes no weights"):
        import_weights(tmp_path / "x.pt", "geometric")
    assert not cache.exists() or left(cache) == []
