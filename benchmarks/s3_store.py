"""A real S3 server on loopback: moto's, if it is installed.

`moto_server` is found on PATH or named by LONGLODE_MOTO_SERVER. moto and s3fs ask for different versions of botocore:
install the server in an environment of its own (`pipx install 'moto[server]'`).
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import util

_MOST_SECONDS = 30.0


class NoStoreError(Exception):
    """Raised when there is no server to start, or no package to read it; says what to install."""


@contextlib.contextmanager
def s3_environment() -> Iterator[dict[str, str]]:
    """Serve an empty store. Yields: the variables of the environment that lead s3:// there. Raises: NoStoreError."""
    if util.find_spec("s3fs") is None:
        raise NoStoreError("needs longlode[s3]")
    command = os.environ.get("LONGLODE_MOTO_SERVER") or shutil.which("moto_server")
    if command is None:
        raise NoStoreError("needs moto_server, on PATH or named by LONGLODE_MOTO_SERVER")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [command, "-H", "127.0.0.1", "-p", str(port)],
        env=alone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(address, server)
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }
    finally:
        server.kill()
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise NoStoreError("moto_server does not start")
