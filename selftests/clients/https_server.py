"""A small HTTPS server whose every misbehaviour is real: it resets, trickles, lies about lengths, on the wire."""

import http.server
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .certificates import Issued


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What to answer.

    `length`: a Content-Length that may be a lie. `reset`: hang up hard after the body. `chunks`: send these
    chunk by chunk instead of `body`, `pause` seconds apart; None among them: end without the last chunk.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    reason: str | None = None
    length: int | None = None
    reset: bool = False
    wait: threading.Event | None = None
    chunks: tuple[bytes | None, ...] | None = None
    pause: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, **more: Any) -> "Reply":
        return cls(status=status, body=json.dumps(value).encode(), **more)


Answer = Callable[[Asked], Reply]


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # the usual 5 make the sixth of several threads wait a second for its SYN


class HttpsServer:
    """Serves `answer` on 127.0.0.1; `asked` keeps every request."""

    def __init__(self, issued: Issued, folder: Path, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.stopping = threading.Event()
        certificate = folder / "server.pem"
        certificate.write_bytes(issued.certificate + issued.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                return

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                outer.asked.append(asked)
                reply = outer.answer(asked)
                if reply.wait is not None:
                    reply.wait.wait(5)
                if reply.reset and not reply.body:
                    self._reset()
                    return
                self.send_response(reply.status, reply.reason)
                self.send_header("content-type", reply.content_type)
                if reply.chunks is not None:
                    self._chunked(reply)
                    return
                length = len(reply.body) if reply.length is None else reply.length
                self.send_header("content-length", str(length))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
                if reply.reset:
                    self._reset()
                elif length != len(reply.body):
                    self.close_connection = True

            def _chunked(self, reply: Reply) -> None:
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for chunk in (*reply.chunks, b""):
                    if chunk is None:
                        self.close_connection = True
                        return
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    outer.stopping.wait(reply.pause)

            def _reset(self) -> None:
                self.wfile.flush()
                # SO_LINGER 0: close() sends RST, as a dying peer's kernel does
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # without shutdown, which would say a tidy goodbye first
                socket.socket(fileno=self.connection.detach()).close()
                self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

        return Handler
