"""Imagery from a tile server (XYZ): rate limited, retried, and cached on the disk.

GDAL's own WMS/TMS driver has no rate limit, does not retry its parallel requests, goes on after a refusal,
caches transparent tiles as black ones and reads no tiles of unknown size; so tiles are fetched here.
"""

import re
import threading
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import requests
from requests.adapters import HTTPAdapter, Retry

from common.errors import UserError
from common.files import write_bytes
from common.geometry import SATELLITE_PX
from dataset.decoding import decode_tile

ZOOM = 20  # of VIGOR's satellite images, with tiles of 256 px
REQUESTS_PER_SECOND = 5.0
USER_AGENT = "CVM-VIGOR dataset.city (research; python-requests)"
REFUSED = (401, 403, 429)  # a download ends after one of these statuses
_TILE_PX = 256
_TIMEOUT_S = (10, 60)  # to connect, and between two packets
_RETRY = Retry(
    total=5, connect=1, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
)
_PLACE, _PLACES = re.compile(r"\{[^}]*\}"), {"{z}", "{x}", "{y}", "{-y}", "{q}"}
_SECRET = re.compile(r"(?i)((?:key|token|sig|signature|password)=)[^&]+")


class Missing(Exception):
    """Imagery that is not available. The message is one line."""


def make_session(user_agent):
    """A session whose requests are repeated, later and later, while a server is busy or fails."""
    session = requests.Session()
    session.headers["User-Agent"] = user_agent
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
    return session


def fetch(session, url):
    """The answer of a server, of any status. Raises `Missing` if it cannot be reached."""
    try:
        return session.get(url, timeout=_TIMEOUT_S)
    except requests.RequestException as error:
        reason = getattr(error.args[0] if error.args else error, "reason", error)
        shown = _SECRET.sub(r"\1...", url)
        raise Missing(f"{shown}: cannot be reached ({str(reason).splitlines()[0]})") from None


class Provider:
    """Tiles from an address such as https://host/{z}/{x}/{y}.png ({-y}: rows from the south, {q}: quadkey).

    cache: folder that keeps downloaded tiles unchanged for later runs · zoom: of the tiles ·
    requests_per_second, user_agent: for all threads together. Raises UserError for another address.
    """

    extent = None

    def __init__(
        self, address, cache, *, zoom=ZOOM, requests_per_second=REQUESTS_PER_SECOND, user_agent=USER_AGENT
    ):
        places = set(_PLACE.findall(address))
        numbered = {"{z}", "{x}"} <= places and bool({"{y}", "{-y}"} & places)
        if places - _PLACES or not (numbered or "{q}" in places):
            raise UserError(
                f"--imagery {address}: expected {{z}}, {{x}} and {{y}} (or {{-y}}), or {{q}}, and "
                "nothing else in braces; write one server's letter for {s}, and /vsicurl/ before the address "
                "of a single file"
            )
        host, shown = urlsplit(address).netloc, _SECRET.sub(r"\1...", address)
        self.address, self.zoom, self.name = address, zoom, f"{shown} at zoom {zoom}"
        self.cache = Path(cache) / f"{host.replace(':', '_')}_{zlib.crc32(shown.encode()):08x}"
        self.terms = (
            f"tiles from {host}, at most {requests_per_second:g} requests a second, kept in {self.cache}: "
            "make sure that the provider's terms allow downloading and keeping them"
        )
        self._pause, self._next, self._turn = 1 / requests_per_second, 0.0, threading.Lock()
        self._side = None  # of a tile in pixels, known after the first one
        self._refusal = None  # after one, no thread sends another request
        self._session = make_session(user_agent)

    def read(self, corner):
        """(640, 640, 3) uint8 RGB of the map at a corner.

        Raises `Missing` where a tile is not available, and UserError where the provider refuses.
        """
        zoomed = 2.0 ** (self.zoom - ZOOM)
        if self._side is None:
            self._side = len(self._tile(*(int(c * zoomed // _TILE_PX) for c in corner)))
        scale = zoomed * self._side / _TILE_PX  # tile pixels per map pixel
        start, stop = np.asarray(corner) * scale, (np.asarray(corner) + SATELLITE_PX) * scale
        # two more pixels on each side, for interpolation
        first, last = ((edge // self._side).astype(int) for edge in (start - 2, stop + 1))
        rows, cols = (range(first[axis], last[axis] + 1) for axis in (0, 1))
        mosaic = np.concatenate([np.concatenate([self._tile(row, col) for col in cols], 1) for row in rows])
        row, col = start - first * self._side
        if scale > 1:  # finer than the map: average whole pixels
            side = round(SATELLITE_PX * scale)
            part = mosaic[round(row) : round(row) + side, round(col) : round(col) + side]
            return cv2.resize(part, (SATELLITE_PX,) * 2, interpolation=cv2.INTER_AREA)
        # from image to mosaic pixels; OpenCV's pixel centres are whole numbers
        to_mosaic = np.float64([[scale, 0, col + scale / 2 - 0.5], [0, scale, row + scale / 2 - 0.5]])
        how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(mosaic, to_mosaic, (SATELLITE_PX,) * 2, flags=how)

    def _tile(self, row, col):
        """(side, side, 3) RGB of a tile, from the cache or from the provider."""
        path = self.cache / str(self.zoom) / str(col) / f"{row}.tile"
        url = self._url(row, col)
        try:
            return self._decode(url, path.read_bytes())
        except (FileNotFoundError, Missing):
            pass
        data = self._fetch(url)
        image = self._decode(url, data)  # before it is cached
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
        return image

    def _decode(self, url, data):
        """(side, side, 3) RGB of an answer. Raises `Missing` for anything but a tile with imagery."""
        url = _SECRET.sub(r"\1...", url)
        try:
            image = decode_tile(url, data)
        except UserError:
            text = " ".join(data[:80].decode("utf-8", "replace").split())
            raise Missing(f"{url}: the answer, {len(data)} bytes, is no image ({text!r})") from None
        if image.shape[2] == 4 and not image[..., 3].all():
            raise Missing(f"{url}: a transparent tile, no imagery at zoom {self.zoom}; try a smaller --zoom")
        height, width = image.shape[:2]
        if height != width or height % 64 or (self._side and height != self._side):
            side = self._side or _TILE_PX
            raise Missing(f"{url}: a tile of {width} x {height} px, expected {side} x {side}")
        return image[..., :3]

    def _fetch(self, url):
        with self._turn:  # all threads share one sequence of start times
            start = max(self._next, time.monotonic())
            self._next = start + self._pause
        time.sleep(max(0.0, start - time.monotonic()))
        if self._refusal:
            raise UserError(self._refusal)
        shown = _SECRET.sub(r"\1...", url)
        answer = fetch(self._session, url)
        status = f"status {answer.status_code} {answer.reason}"
        if answer.status_code in REFUSED:
            self._refusal = (
                f"{shown}: the provider refuses ({status}); check the key in the address, the provider's "
                "terms and --requests_per_second. The same command continues where it stopped"
            )
            raise UserError(self._refusal)
        if answer.status_code != 200:
            remedy = f"; try a smaller --zoom than {self.zoom}" if answer.status_code == 404 else ""
            raise Missing(f"{shown}: {status}{remedy}")
        return answer.content

    def _url(self, row, col):
        bits = range(self.zoom - 1, -1, -1)
        quadkey = "".join(str((col >> bit & 1) + 2 * (row >> bit & 1)) for bit in bits)
        south = 2**self.zoom - 1 - row
        values = {"{z}": self.zoom, "{x}": col, "{y}": row, "{-y}": south, "{q}": quadkey}
        return _PLACE.sub(lambda match: str(values[match[0]]), self.address)
