"""uWSGI, which runs both OpenStack services: its command line, its ports, its readiness.

All timeouts of uWSGI are left at their defaults, because the tests rely on how a service
with these behaves when a client stalls. The router closes every connection after one answer;
`Connection: close` tells the client so, or it would now and then send its next request into a
connection that is just being closed.
"""

import random
import socket
import time
from pathlib import Path

import requests

from tests.sandbox.service import POLL_SECONDS

# Below the range from which Linux takes the ports of outgoing connections: a port of that
# range could be taken, or even answer itself, while its service is stopped for a test.
PORTS = range(15000, 32000)
TRIES = 200
FREE_SECONDS = 30.0


def free_ports(count: int) -> list[int]:
    """Different loopback ports on which nothing listens."""
    found: list[int] = []
    for port in random.sample(PORTS, TRIES):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free loopback port")


def is_free(port: int) -> bool:
    """Whether nothing listens on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_free(port: int) -> None:
    """Return once nothing listens on the port any more; OSError when that does not come."""
    deadline = time.monotonic() + FREE_SECONDS
    while not is_free(port):
        if time.monotonic() > deadline:
            raise OSError(f"something still listens on port {port}")
        time.sleep(POLL_SECONDS)


def command(venv: Path, module: str, port: int, workers: int, stats: Path) -> list[str]:
    """Run a WSGI application on the port, with a log line for every request."""
    options = {
        "http": f"127.0.0.1:{port}",
        "module": module,
        "processes": str(workers),
        "add-header": "Connection: close",
        "buffer-size": "65535",
        "log-format": "request %(method) %(uri) %(status)",
        "stats": str(stats),
    }
    flags = ["http-chunked-input", "master", "enable-threads", "need-app", "die-on-term"]
    flags += ["no-orphans", "thunder-lock"]
    return [
        str(venv / "bin" / "uwsgi"),
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--{flag}" for flag in flags),
    ]


def answers(url: str) -> bool:
    """Whether the URL is served without an error."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=10).ok
        except requests.RequestException:
            return False
