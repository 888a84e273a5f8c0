"""A web server on 127.0.0.1 that fails as it is told to: for the tests of downloads."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """files: path -> content. cuts: path -> bytes after which each of the next answers breaks off. asked: the log.

    status: path -> the code to answer with; heads: path -> headers in place of the right ones.
    """

    def __init__(self, address: str):
        self.address, self.files, self.cuts, self.status, self.heads = address, {}, {}, {}, {}
        self.asked: list[str] = []

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
    path = request.path.lstrip("/")
    site.asked.append(path)
    if path not in site.files:
        request.send_error(site.status.get(path, 404))
        return
    content = site.files[path]
    request.send_response(site.status.get(path, 200))
    for header, value in ({"Content-Length": str(len(content))} | site.heads.get(path, {})).items():
        request.send_header(header, value)
    request.end_headers()
    cuts = site.cuts.get(path, [])
    request.wfile.write(content[: cuts.pop(0) if cuts else None])
    request.close_connection = True
