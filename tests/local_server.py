"""A local HTTP server for a test, up while the block runs, and ports for servers that are told theirs."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def local_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of this machine; yields the address without a path."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, name="test-server")
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def free_ports(n: int = 1) -> int:
    """The first of so many ports in a row that nobody listens on, for a process that is started with them.

    They lie below those that a system hands out by itself, and are drawn anew each time, whatever seed a test has set:
    so nobody else is likely to take one before that process does.
    """
    draw = random.SystemRandom()
    while True:
        first = draw.randrange(15_000, 32_000)
        with ExitStack() as held:
            try:
                for port in range(first, first + n):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return first
