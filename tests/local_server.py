"""A web server on 127.0.0.1 that fails as it is told to: for the tests of downloads."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """files: path -> content. cuts: path -> bytes after which each of the next answers breaks off. asked: the log."""

    def __init__(self, address: str):
        self.address, self.files, self.cuts, self.ranges, self.status = address, {}, {}, True, {}
        self.asked: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"{self.address}/{path}"


@contextmanager
def serve():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self, site)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, site: Site) -> None:
    path, wanted = request.path.lstrip("/"), request.headers.get("Range")
    site.asked.append((path, wanted))
    if path in site.status or path not in site.files:
        request.send_error(site.status.get(path, 404))
        return
    content = site.files[path]
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
    if start >= len(content) > 0:
        request.send_error(416)
        return
    request.send_response(206 if start else 200)
    request.send_header("Content-Length", str(len(content) - start))
    if start:
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    request.end_headers()
    cuts = site.cuts.get(path, [])
    request.wfile.write(content[start:][: cuts.pop(0) if cuts else None])
    request.close_connection = True
