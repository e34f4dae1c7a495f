"""Imagery of a provider's, tile by tile from an XYZ address, fetched politely and kept on the disk."""

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
from dataset.images import decode

ZOOM = 20  # of VIGOR's satellite images, with tiles of 256 px
REQUESTS_PER_SECOND = 5.0
USER_AGENT = "CVM-VIGOR dataset.city (research; python-requests)"
_TILE_PX = 256
_TIMEOUT_S = (10, 60)  # to connect, and between two packets
_RETRIES = 5  # with pauses that double, from a second on
_PLACES = {"{z}", "{x}", "{y}", "{-y}", "{q}"}
_SECRET = re.compile(r"(?i)((?:key|token|sig|signature|password)=)[^&]+")
_REFUSED = (401, 403, 429)  # statuses after which asking on would be rude


class Missing(Exception):
    """Imagery that is not there, in one line."""


def _shown(url):
    """An address without its secrets, for lines and files."""
    return _SECRET.sub(r"\1...", url)


def is_address(source):
    """Is it a web address rather than a file?"""
    return str(source).startswith(("http://", "https://"))


class Provider:
    """XYZ tiles of an address such as https://host/{z}/{x}/{y}.png; {-y} counts rows from the south, {q} is a quadkey.

    cache: folder where tiles are kept as they came, for later runs · zoom: of the tiles · requests_per_second, user_agent: how
    politely they are fetched. Raises UserError for an address without places for a tile's numbers.
    """

    extent = None

    def __init__(self, address, cache, *, zoom=ZOOM, requests_per_second=REQUESTS_PER_SECOND, user_agent=USER_AGENT):
        self.address, self.zoom = address, zoom
        if unknown := set(re.findall(r"\{[^}]*\}", address)) - _PLACES:
            known = ", ".join(sorted(_PLACES))
            raise UserError(f"--imagery {address}: {unknown.pop()} is none of {known}; write a server's letter in its place")
        if not ("{q}" in address or ("{z}" in address and "{x}" in address and ("{y}" in address or "{-y}" in address))):
            way_out = "https://host/{z}/{x}/{y}.png has places for them; a single file wants /vsicurl/ before its address"
            raise UserError(f"--imagery {address}: where do a tile's numbers go? {way_out}")
        host = urlsplit(address).netloc
        self.cache = Path(cache) / f"{host.replace(':', '_')}_{zlib.crc32(_shown(address).encode()):08x}"
        self.name = f"{_shown(address)} at zoom {zoom}"
        self.terms = (
            f"tiles from {host}, at most {requests_per_second:g} requests a second, kept in {self.cache}: see to it that the "
            "provider's terms allow to download and to keep them"
        )
        self._pause, self._next, self._turn = 1 / requests_per_second, 0.0, threading.Lock()
        self._side = None  # of a tile in pixels, which the first one tells
        retry = Retry(
            total=_RETRIES, connect=1, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=("GET",),
            respect_retry_after_header=True, raise_on_status=False,
        )  # fmt: skip
        self._session = requests.Session()
        self._session.headers["User-Agent"] = user_agent
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def read(self, corner):
        """(640, 640, 3) uint8 RGB of the map from a corner on. `Missing` where a tile cannot be had; UserError where the provider
        refuses."""
        zoomed = 2.0 ** (self.zoom - ZOOM)
        if self._side is None:
            self._side = len(self._tile(*(int(c * zoomed // _TILE_PX) for c in corner)))
        scale = zoomed * self._side / _TILE_PX  # tiles' pixels to one of the map
        start, stop = np.asarray(corner) * scale, (np.asarray(corner) + SATELLITE_PX) * scale
        # two pixels more on each side, for interpolation
        first, last = ((edge // self._side).astype(int) for edge in (start - 2, stop + 1))
        rows = [
            np.concatenate([self._tile(row, col) for col in range(first[1], last[1] + 1)], 1)
            for row in range(first[0], last[0] + 1)
        ]
        there = np.concatenate(rows)
        row, col = start - first * self._side
        if scale > 1:  # finer than the map: whole pixels of it become one
            side = round(SATELLITE_PX * scale)
            there = there[round(row) : round(row) + side, round(col) : round(col) + side]
            return cv2.resize(there, (SATELLITE_PX,) * 2, interpolation=cv2.INTER_AREA)
        # from a pixel's centre in the image to one in the tiles, where OpenCV's lie at whole numbers
        to_there = np.float64([[scale, 0, col + scale / 2 - 0.5], [0, scale, row + scale / 2 - 0.5]])
        how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(there, to_there, (SATELLITE_PX,) * 2, flags=how)

    def _tile(self, row, col):
        """(side, side, 3) RGB of a tile, from the cache or from the provider."""
        path = self.cache / str(self.zoom) / str(col) / f"{row}.tile"
        url = self._url(row, col)
        try:
            return self._checked(url, path.read_bytes())
        except (FileNotFoundError, Missing):
            pass
        data = self._fetch(url)
        image = self._checked(url, data)  # before it is kept
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
        return image

    def _checked(self, url, data):
        try:
            image = decode(_shown(url), data)
        except UserError:
            text = " ".join(data[:80].decode("utf-8", "replace").split())
            raise Missing(f"{_shown(url)}: the answer, {len(data)} bytes, is no image ({text!r})") from None
        if image.shape[2] == 4 and not image[..., 3].all():
            raise Missing(f"{_shown(url)}: a transparent tile, no imagery at zoom {self.zoom}; a smaller --zoom may have some")
        height, width = image.shape[:2]
        if height != width or height % 64 or (self._side and height != self._side):
            side = self._side or _TILE_PX
            raise Missing(f"{_shown(url)}: a tile of {width} x {height} px where {side} x {side} belong")
        return image[..., :3]

    def _fetch(self, url):
        with self._turn:  # one after the other, however many threads ask
            start = max(self._next, time.monotonic())
            self._next = start + self._pause
        time.sleep(max(0.0, start - time.monotonic()))
        try:
            answer = self._session.get(url, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            reason = getattr(error.args[0] if error.args else error, "reason", error)
            raise Missing(f"{_shown(url)}: cannot be reached ({str(reason).splitlines()[0]})") from None
        if answer.status_code in _REFUSED:
            raise UserError(
                f"{_shown(url)}: the provider refuses (status {answer.status_code} {answer.reason}); is the "
                "key in the address right, do the terms allow it, were there too many requests? The same command goes on where "
                "it stopped"
            )
        if answer.status_code != 200:
            remedy = f"; a smaller --zoom than {self.zoom} may have imagery there" if answer.status_code == 404 else ""
            raise Missing(f"{_shown(url)}: status {answer.status_code} {answer.reason}{remedy}")
        return answer.content

    def _url(self, row, col):
        quadkey = "".join(str((col >> bit & 1) + 2 * (row >> bit & 1)) for bit in range(self.zoom - 1, -1, -1))
        south = 2**self.zoom - 1 - row
        parts = {"{z}": self.zoom, "{x}": col, "{y}": row, "{-y}": south, "{q}": quadkey}
        url = self.address
        for place, value in parts.items():
            url = url.replace(place, str(value))
        return url
