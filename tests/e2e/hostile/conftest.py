"""Hostile inputs through the real command line: one line, or the right result; never more.

Whatever the input is: no traceback, no code of it run, no hang, no memory without bound, no file
but the output, no request to a server. Every class of attack runs once as a process of its own; its
variants run in this process, through the same entry point.
"""

import http.server
import os
import resource
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from l1bsr_geo.cli import console, main
from tests.synthetic import hostile
from tests.synthetic.confined import MemoryWatch, Outcome, files, outputs

LIMIT = 20  # [s]
ADDRESSES = 16 << 30  # [bytes]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where a test works: a folder in a folder, which is the current one, so that .. is seen."""
    inner = tmp_path / "around" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path / "around" / "cache"))
    return inner


@pytest.fixture
def run(place, capsys, monkeypatch):
    """The command in this process."""

    def too_long(*_):
        raise TimeoutError(f"more than {LIMIT} s")

    def call(*words):
        before = files(place.parent)
        monkeypatch.setattr(sys, "argv", ["l1bsr-geo", *map(str, words)])
        monkeypatch.setattr(console, "_SAID", set())
        monkeypatch.setenv("GDAL_CACHEMAX", "128")
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signal.signal(signal.SIGALRM, too_long)
            signal.alarm(LIMIT)
            try:
                with pytest.raises(SystemExit) as ended:
                    main.main()
            finally:
                signal.alarm(0)
        after = files(place.parent)
        assert before.items() <= after.items() | {(o, before[o]) for o in outputs(words, before)}
        return Outcome(ended.value.code, capsys.readouterr().err, sorted(after.keys() - before))

    return call


@pytest.fixture
def process(place):
    """The command in a process of its own, with little memory and time."""

    def call(*words):
        before = files(place.parent)
        with (place.parent.parent / "stderr").open("w+") as stderr:
            begun = subprocess.Popen(
                [sys.executable, "-m", "l1bsr_geo", *map(str, words)],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES)),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            )
            timer = threading.Timer(3 * LIMIT, begun.kill)
            timer.start()
            watch = MemoryWatch(begun.pid)
            begun.wait()
            timer.cancel()
            watch.join()
            stderr.seek(0)
            said = stderr.read()
        after = files(place.parent)
        assert before.items() <= after.items() | {(o, before[o]) for o in outputs(words, before)}
        new = sorted(after.keys() - before)
        return Outcome(begun.returncode, said, new, watch.peak)

    return call


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A small sound product, to be copied and broken."""
    return hostile.small_product(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def safe(sound, place):
    return hostile.copy_of(sound, place)


@pytest.fixture
def server():
    """A server on this machine; the requests that reach it."""
    reached = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            reached.append(self.path)
            self.send_error(404)

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        listening.reached, listening.url = reached, f"http://127.0.0.1:{listening.server_port}"
        yield listening
        listening.shutdown()
