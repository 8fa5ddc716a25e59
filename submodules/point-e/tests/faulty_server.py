"""A local HTTP server that serves one file and, for one request after the other, the faults that are ordered."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Reply:
    """Answer to a request: a good one by default.

    status: an error to answer with. cut: bytes after which the connection breaks. ranges: True if Range is
    obeyed. claim: the Content-Length, if it is not the truth; -1 for none. content: sent instead of the file.
    wrong_range: a Content-Range that was not requested. etag: of the file; None for no header.
    """

    status: int | None = None
    cut: int | None = None
    ranges: bool = True
    claim: int | None = None
    content: bytes | None = None
    wrong_range: bool = False
    etag: str | None = '"first"'


@dataclass
class Server:
    """State of a server: the file, the replies to come (then good ones), the headers of the requests so far,
    and the URL of its folder.
    """

    content: bytes
    md5: bytes | None = None
    replies: list[Reply] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    usual: Reply = Reply()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = dict(handler.headers.items())
        self.requests.append(headers)
        reply = self.replies.pop(0) if self.replies else self.usual
        if reply.status is not None:
            handler.send_error(reply.status)
            return
        content = self.content if reply.content is None else reply.content
        start = 0
        if reply.ranges and "Range" in headers and headers.get("If-Range") == reply.etag:
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(content) > 0:
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        body = content[start:]
        if start:
            told = start + 1 if reply.wrong_range else start
            handler.send_header("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")
        if reply.claim != -1:
            handler.send_header("Content-Length", str(len(body) if reply.claim is None else reply.claim))
        if reply.etag is not None:
            handler.send_header("ETag", reply.etag)
        if self.md5 is not None:
            name = "x-ms-blob-content-md5" if start else "Content-MD5"
            handler.send_header(name, base64.b64encode(self.md5).decode())
        handler.end_headers()
        handler.wfile.write(body[: reply.cut])
        handler.close_connection = True


def md5_of(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


@contextmanager
def serve(content: bytes) -> Iterator[Server]:
    """Run a server of `content` at any path, on a free port of this machine."""
    server = Server(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}/"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
