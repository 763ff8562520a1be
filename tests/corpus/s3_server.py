"""A real S3 server on loopback for tests: moto's, if it is installed.

`moto_server` is found on PATH or named by LONGLODE_MOTO_SERVER. moto and s3fs ask for different versions of botocore:
install the server in an environment of its own (`pipx install 'moto[server]'`).
"""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest


@contextmanager
def s3_server(monkeypatch):
    """Serve an empty store; the environment leads s3:// there. Yields its file system."""
    pytest.importorskip("s3fs", reason="needs longlode[s3]")
    command = os.environ.get("LONGLODE_MOTO_SERVER") or shutil.which("moto_server")
    if command is None:
        pytest.skip("needs moto_server, on PATH or named by LONGLODE_MOTO_SERVER")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    values = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    for name, value in {**values, "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [command, "-H", "127.0.0.1", "-p", str(port)],
        env=alone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(address, server)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        store = s3fs.S3FileSystem()
        store.mkdir("corpus")
        yield store
    finally:
        server.kill()
        server.wait()


def _wait_for(address, server):
    until = time.monotonic() + 30
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.skip("moto_server does not start")
