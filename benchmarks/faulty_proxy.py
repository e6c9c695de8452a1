"""An HTTP proxy that fails now and then, before or behind the server: dropped lines, 503, short and slow answers."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

KINDS = ("drop", "drop answer", "503", "short", "slow")
SLOW_PIECES = 8
SLOW_PAUSE_S = 0.01
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


class FaultyProxy:
    """Forwards requests to `endpoint`; a `share` of them fails in a way drawn from `kinds`."""

    def __init__(self, endpoint: str, *, share: float = 0.05, seed: int = 0, kinds: tuple[str, ...] = KINDS):
        self.host = urlsplit(endpoint).netloc
        self.share, self.kinds = share, kinds
        self.counts: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def draw(self) -> str:
        """Return the fault of the next request, or "none"."""
        with self._lock:
            fault = self._random.choice(self.kinds) if self._random.random() < self.share else "none"
            self.counts[fault] += 1
        return fault


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client went away
                self.close_connection = True

        def forward(self) -> None:
            body = self._body()
            fault = proxy.draw()
            if fault == "drop":
                return self._hang_up()
            if fault == "503":
                return self._answer(503, {"Content-Type": "application/xml"}, b"<Error><Code>SlowDown</Code></Error>")
            connection = http.client.HTTPConnection(proxy.host, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in {"transfer-encoding", "expect"}}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            connection.close()
            if fault == "drop answer":
                return self._hang_up()
            return self._answer(answer.status, kept, content, length=length, fault=fault)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(
            self, status: int, headers: dict[str, str], body: bytes, length: str | None = None, fault: str = ""
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if fault == "short" and body:
                self.wfile.write(body[: len(body) // 2])
                return self._hang_up()
            if fault == "slow" and body:
                step = -(-len(body) // SLOW_PIECES)
                for first in range(0, len(body), step):
                    self.wfile.write(body[first : first + step])
                    self.wfile.flush()
                    time.sleep(SLOW_PAUSE_S)
                return None
            self.wfile.write(body)
            return None

        def _hang_up(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
