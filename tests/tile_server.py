"""A world of known colours, and a web server for tiles of it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from dataset.decoding import encode


def colour_at(row, col):
    """(..., 3) float colours, 0 to 255, at positions on the map: waves along rows, columns and a diagonal."""
    row, col = np.broadcast_arrays(row, col)
    waves = np.sin(row / 11), np.sin(col / 17), np.sin((row + 2 * col) / 29)
    return np.stack([127 + 100 * wave for wave in waves], -1)


def draw_tile(zoom, col, row, side=256):
    """(side, side, 3) uint8: a tile of that world; each pixel has the colour of its centre."""
    rows, cols = (np.arange(side) + 0.5)[:, None], (np.arange(side) + 0.5)[None]
    scale = 2.0 ** (20 - zoom) * 256 / side
    return np.rint(colour_at((row * side + rows) * scale, (col * side + cols) * scale)).astype(np.uint8)


class TileServer:
    """Answers GET /{z}/{x}/{y}.png on this machine.

    `answer` maps a path to (status, content type, bytes, headers) and may be replaced.
    """

    def __init__(self):
        self.asked, self.agents, self.side = [], set(), 256
        self.answer = self.draw
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                server.agents.add(self.headers["User-Agent"])
                status, kind, data, headers = server.answer(self.path)
                self.send_response(status)
                headers = {"Content-Type": kind, "Content-Length": str(len(data)), **headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.address = self.url + "/{z}/{x}/{y}.png"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def draw(self, path):
        zoom, col, row = (int(part) for part in path.removesuffix(".png").strip("/").split("/"))
        return 200, "image/png", encode(draw_tile(zoom, col, row, self.side), ".png"), {}

    def serve(self, folder, fails=()):
        """Answer from files under a folder, with status 404 for others and for paths in `fails`."""

        def answer(path):
            file = folder / path.lstrip("/")
            if path in fails or not file.exists():
                return 404, "text/plain", b"", {}
            return 200, "image/png", file.read_bytes(), {}

        self.answer = answer

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()
