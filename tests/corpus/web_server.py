"""A web server on loopback for tests: with or without ranges, and with answers that fail a few times."""

import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """Files by path, and how to serve them."""

    def __init__(self, files, *, ranges=True, failures=0, cut_after=None):
        self.files, self.ranges, self.failures, self.cut_after = files, ranges, failures, cut_after
        self.asked = Counter()
        self.sent = 0  # bytes of files
        self.address = ""

    def must_fail(self):
        self.failures -= 1
        return self.failures >= 0


@contextmanager
def serving(site, ssl_context=None):
    """Serve a site; its `address` is the URL of its root."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            site.asked[self.command] += 1
            data = site.files.get(self.path)
            if data is None:
                return self.send(404, b"", body)
            if body and site.must_fail():
                return self.send(503, b"busy", body)
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if not (site.ranges and wanted):
                return self.send(200, data, body)
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            where = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            return self.send(206, data[first : last + 1], body, where)

        def send(self, status, data, body, fields=None):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if site.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{hash(data):x}"')
            for name, value in (fields or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if body and site.cut_after is not None and len(data) > site.cut_after:
                self.wfile.write(data[: site.cut_after])  # once, in the middle of an answer
                site.cut_after = None
                self.close_connection = True
            elif body:
                self.wfile.write(data)
                site.sent += len(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if ssl_context is not None:
        server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    protocol = "http" if ssl_context is None else "https"
    site.address = f"{protocol}://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
