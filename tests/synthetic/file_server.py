"""A real HTTP server on this machine that serves files, and fails as servers do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Serves ``files`` by path, and notes what was asked.

    Attributes:
        files: path to content.
        takes_ranges: whether parts may be asked for.
        etags: path to what the version is called.
        cuts: after how many bytes of a body to hang up, for one answer after the other.
        refusals: (status, headers) of the next answers, in place of files.
        redirects: path to address.
        asked: (path, Range, If-Range) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    takes_ranges: bool = True
    etags: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def running(self) -> Iterator["FileServer"]:
        """Answers while inside."""
        http = ThreadingHTTPServer(("127.0.0.1", 0), self._answerer())
        self.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            http.shutdown()
            thread.join()
            http.server_close()

    def ranges(self) -> list[str | None]:
        """The Range of every request."""
        return [told for _, told, _ in self.asked]

    def _answerer(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told = (self.headers.get("Range"), self.headers.get("If-Range"))
                server.asked.append((self.path, *told))
                if server.refusals:
                    self.refuse(*server.refusals.pop(0))
                elif self.path in server.redirects:
                    self.refuse(302, {"Location": server.redirects[self.path]})
                elif self.path not in server.files:
                    self.refuse(404, {})
                else:
                    self.serve(server.files[self.path], *told)

            def refuse(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def serve(self, content: bytes, wanted: str | None, version: str | None) -> None:
                etag = server.etags.get(self.path)
                same = version is None or version == etag
                first = 0
                if wanted and server.takes_ranges and same:
                    first = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    if first >= len(content):
                        self.refuse(416, {"Content-Range": f"bytes */{len(content)}"})
                        return
                self.send_response(206 if first else 200)
                if first:
                    last = len(content) - 1
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                if etag:
                    self.send_header("ETag", etag)
                body = content[first:]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

            def log_message(self, *_) -> None:
                pass

        return Answer
