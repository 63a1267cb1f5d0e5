"""A small Sentinel Hub: token, catalog with pages, and images of a scene, over real HTTP.

It checks what it is asked as the service does, and can be told to fail in the service's ways.
"""

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from affine import Affine
from rasterio.io import MemoryFile

CLIENT, SECRET = "the-client", "the-secret"
TOKEN, CATALOG, PROCESS = "/auth/token", "/api/v1/catalog/1.0.0/search", "/api/v1/process"
LARGEST = 2500
PAGE = 2  # items of the catalog at a time

Sample = Callable[[str, np.ndarray, np.ndarray], np.ndarray]  # band, easting, northing to DN


@dataclass(frozen=True)
class Failure:
    """How the next request of an address ends.

    Attributes:
        status: of HTTP; 200 sends ``body`` as if nothing were wrong.
        body: of the answer.
        headers: of the answer.
        wait: [s] before it.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0


@dataclass
class SentinelHubServer:
    """What the server has and what it was asked.

    Attributes:
        sample: what images show.
        crs: EPSG code that it shows it in, such as "EPSG:32631".
        items: STAC items by collection.
        failures: by address, used up one by one.
        asked: bodies of requests by address, in order.
        url: where it listens.
    """

    sample: Sample
    crs: str
    items: dict[str, list[dict[str, Any]]]
    failures: dict[str, deque[Failure]] = field(default_factory=dict)
    asked: dict[str, list[Any]] = field(default_factory=dict)
    url: str = ""

    @property
    def counts(self) -> Counter[str]:
        """Requests by address."""
        return Counter({path: len(bodies) for path, bodies in self.asked.items()})

    def fail(self, path: str, *failures: Failure) -> None:
        """Let the next requests of an address fail."""
        self.failures.setdefault(path, deque()).extend(failures)

    @contextmanager
    def listen(self) -> Iterator["SentinelHubServer"]:
        """Serve on a free port until the end."""
        handler = type("Handler", (_Handler,), {"hub": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            yield self
            server.shutdown()
            thread.join()

    def write_config(self, folder: Path, **settings: Any) -> Path:
        """A configuration of sentinelhub that leads here; ``folder`` is for XDG_CONFIG_HOME."""
        told = {
            "sh_base_url": self.url,
            "sh_token_url": f"{self.url}{TOKEN}",
            "download_sleep_time": 0.01,
            "download_timeout_seconds": 20.0,
            "max_download_attempts": 3,
            "max_retries": 3,
        } | settings
        path = folder / "sentinelhub" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} = {json.dumps(value)}" for name, value in told.items()]
        path.write_text("[default-profile]\n" + "\n".join(lines) + "\n")
        return folder


def make_item(name: str, when: str, cloud: float, box: tuple[float, ...]) -> dict[str, Any]:
    """A STAC item, as the catalog tells it.

    Args:
        name: its id.
        when: RFC 3339.
        cloud: [%].
        box: west, south, east, north of its pixels [degrees].
    """
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": when, "eo:cloud_cover": cloud},
    }


class _Handler(BaseHTTPRequestHandler):
    hub: SentinelHubServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = parse_qs(raw.decode()) if self.path == TOKEN else json.loads(raw)
        self.hub.asked.setdefault(self.path, []).append(body)
        if self.hub.failures.get(self.path):
            failure = self.hub.failures[self.path].popleft()
            time.sleep(failure.wait)
            self._answer(failure.status, failure.body, failure.headers)
        elif self.path == TOKEN:
            self._give_token(body)
        elif self.headers.get("Authorization") != "Bearer a.token":
            self._refuse(401, "COMMON_UNAUTHORIZED", "Unauthorized")
        elif self.path == CATALOG:
            self._search(body)
        elif self.path == PROCESS:
            self._draw(body)
        else:
            self._refuse(404, "NOT_FOUND", self.path)

    def _give_token(self, form: dict[str, list[str]]) -> None:
        told = [form.get(name, [""])[0] for name in ("grant_type", "client_id", "client_secret")]
        if told == ["client_credentials", CLIENT, SECRET]:
            self._answer_json({"access_token": "a.token", "expires_in": 3600})
        else:
            self._answer_json({"error": "invalid_client", "error_description": "bad"}, 401)

    def _search(self, body: dict[str, Any]) -> None:
        west, south, east, north = body["bbox"]
        begin, end = body["datetime"].split("/")
        assert body["limit"] >= 1
        found = []
        for item in self.hub.items.get(body["collections"][0], []):
            x, y = np.array(item["geometry"]["coordinates"][0]).T
            touches = x.min() < east and x.max() > west and y.min() < north and y.max() > south
            if touches and begin <= item["properties"]["datetime"] <= end:
                found.append(item)
        start = body.get("next", 0)
        context: dict[str, Any] = {"limit": PAGE, "returned": len(found[start : start + PAGE])}
        if start + PAGE < len(found):
            context["next"] = start + PAGE
        features = found[start : start + PAGE]
        self._answer_json({"type": "FeatureCollection", "features": features, "context": context})

    def _draw(self, body: dict[str, Any]) -> None:
        bounds, output = body["input"]["bounds"], body["output"]
        width, height = output["width"], output["height"]
        if max(width, height) > LARGEST:
            self._refuse(400, "RENDERER_EXCEPTION", "The width and height must be at most 2500")
            return
        assert bounds["properties"]["crs"].endswith(self.hub.crs.removeprefix("EPSG:"))
        assert body["input"]["data"][0]["type"] in self.hub.items
        left, bottom, right, top = bounds["bbox"]
        transform = Affine((right - left) / width, 0, left, 0, (bottom - top) / height, top)
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        dn = np.stack([self.hub.sample(b, *(transform @ (x, y))) for b in ("B03", "B04")])
        pixels = np.nan_to_num(np.rint(dn)).clip(0, 65535).astype(np.uint16)
        with MemoryFile() as memory:
            with memory.open(
                driver="GTiff", width=width, height=height, count=2, dtype="uint16",
                crs=self.hub.crs, transform=transform,
            ) as image:  # fmt: skip
                image.write(pixels)
            self._answer(200, memory.read(), {"Content-Type": "image/tiff"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        error = {"status": status, "reason": "refused", "message": message, "code": code}
        self._answer_json({"error": error}, status)

    def _answer_json(self, told: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # who asked has gone: that is what time-outs do

    def log_message(self, *_: Any) -> None:
        """Quiet."""
