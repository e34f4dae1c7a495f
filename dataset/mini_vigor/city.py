"""The world of mini-VIGOR: one made-up district of a city, as rasters on the Web Mercator pixel grid at zoom 20.

A satellite image is a plain crop of these rasters, so that names, labels and pixels agree exactly. Two frames are used:
rasters count (row, col) as `common.geometry` does; streets and houses are planned in metres (u, v) along the street grid,
which `City.to_px` turns, bends and scales into the raster.
"""

import zlib
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from common import geometry

QUARTER_M = 0.25  # heights are stored as whole quarter metres: 63.75 m at most
TILE_STEP_PX = geometry.SATELLITE_PX // 2  # VIGOR's satellite images lie half an image apart
WHITE = (226, 226, 220)  # of painted marks
MARGIN_PX = 900  # world beyond the outermost cells; panoramas see this far


def generator(seed, *key):
    """A NumPy random generator that depends on (seed, *key) alone; key holds whole numbers and strings."""
    return np.random.default_rng([seed, *(zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key)])


@dataclass(frozen=True)
class Style:
    """What makes a city look like itself. Lengths in metres, colours RGB, shares from 0 to 1."""

    latitude: float
    longitude: float
    turn_deg: float  # street grid, clockwise from north
    bend: float  # sideways swing of the streets
    block: tuple  # mean distance between streets, along u and v
    streets: tuple  # carriageway widths to choose from
    pavement: float
    lot: tuple  # width of a house, from and to
    setback: tuple  # front garden, from and to
    storeys: tuple  # from and to
    green: float  # share of trees, lawns, hedges
    parks: float  # share of blocks
    closed: float  # share of street segments that are footpaths
    parked: float  # share of kerb taken by cars
    asphalt: tuple
    paving: tuple
    lawn: tuple
    walls: tuple
    roofs: tuple
    leaves: tuple  # darkest and lightest
    centre_line: tuple
    gables: bool
    sun_deg: tuple  # bearing and elevation of the sun over the satellite's image
    shade: float  # light left in a shadow
    satellite_cast: tuple  # gain of R, G, B
    panorama_cast: tuple
    outside: float  # share of semi-positives that leave the panorama outside
    # What `varied` worlds have beside that; the defaults are the four cities', which know none of it.
    swing: tuple = (47.0, 53.0)  # metres of the streets' bends
    skew: float = 0.0  # metres that the grid shears along u for each along v
    marked: float = 1.0  # share of street segments with any mark
    paint: tuple = WHITE  # of marks
    wear: float = 0.0  # share of the marks' paint that is gone
    kerb: float = 0.3  # width
    kerb_colour: tuple | None = None  # None: a little lighter than the paving
    ground: tuple | None = None  # beside the kerbs; None: paving
    verge: float = 0.0  # width of the grass between kerb and footpath
    footpath: float = 0.0
    corner: float = 0.0  # radius of the kerbs at junctions
    driveways: float = 0.0  # share of lots
    islands: float = 0.0  # share of streets' ends
    roundabouts: float = 0.0  # share of junctions
    medians: float = 0.0  # share of wide streets
    slips: float = 0.0  # share of junctions' corners with a lane of their own
    edges: float = 0.0  # share of streets with lines along the kerbs
    hatchings: float = 0.0  # share of streets' ends
    words: float = 0.0  # share of streets' ends
    squares: float = 0.0  # share of blocks
    fences: float = 0.0  # share of lots
    patchy: float = 1.0  # how much the street was mended
    boxes: float = 1.0  # how much of it is painted in colours
    mixed: float = 0.0  # how much streets differ from one another
    poles: float = 0.0  # metres between lamps, signs and people along a kerb; 0: none
    crowns: tuple | None = None  # radius of trees, from and to; None: by where they stand
    tops: tuple = (4.5, 9.0)  # height of trees, from and to
    edge_of_crown: float = 0.7  # height of a crown at its edge, share of the tree's
    ragged: float = 0.0  # share of a crown that lets the ground through
    under_trees: bool = False  # whether a panorama may be taken there
    soft: float = 0.0  # metres over which shadows fade, from above
    blue: float = 0.0  # how much bluer shadows are
    lean_deg: tuple = (0.0, 0.0)  # of the satellite's view: off the vertical, and the bearing that tops are moved towards


STYLES = {
    "NewYork": Style(
        latitude=40.7420, longitude=-73.9890, turn_deg=29, bend=0.5, block=(105, 66), streets=(9, 9, 12, 18), pavement=4.5,
        lot=(9, 26), setback=(0, 0.6), storeys=(4, 16), green=0.35, parks=0.06, closed=0.04, parked=0.35,
        asphalt=(92, 93, 97), paving=(168, 165, 160), lawn=(96, 116, 70),
        walls=((150, 92, 74), (178, 160, 138), (122, 104, 96), (196, 190, 180), (104, 110, 122)),
        roofs=((150, 148, 146), (96, 92, 92), (190, 188, 184), (122, 98, 88)), leaves=((38, 62, 30), (108, 132, 66)),
        centre_line=(222, 178, 52), gables=False, sun_deg=(140, 50), shade=0.66,
        satellite_cast=(1.0, 0.99, 0.97), panorama_cast=(0.98, 1.0, 1.03), outside=0.02),
    "Seattle": Style(
        latitude=47.6205, longitude=-122.3210, turn_deg=2, bend=7, block=(72, 92), streets=(8, 9, 11, 14), pavement=3.2,
        lot=(11, 20), setback=(2, 6), storeys=(1, 5), green=0.95, parks=0.12, closed=0.12, parked=0.3,
        asphalt=(104, 108, 108), paving=(158, 162, 158), lawn=(78, 118, 66),
        walls=((132, 150, 160), (188, 190, 180), (110, 124, 108), (162, 120, 96), (84, 96, 108)),
        roofs=((92, 98, 104), (120, 112, 104), (84, 92, 84), (142, 146, 148)), leaves=((26, 58, 36), (88, 130, 76)),
        centre_line=(222, 178, 52), gables=True, sun_deg=(165, 42), shade=0.74,
        satellite_cast=(0.94, 0.99, 1.01), panorama_cast=(0.95, 0.99, 1.04), outside=0.28),
    "SanFrancisco": Style(
        latitude=37.7785, longitude=-122.4315, turn_deg=-9, bend=3, block=(84, 118), streets=(10, 12, 15, 20), pavement=3.6,
        lot=(7, 12), setback=(0, 1.5), storeys=(2, 4), green=0.4, parks=0.07, closed=0.08, parked=0.4,
        asphalt=(122, 119, 116), paving=(198, 192, 182), lawn=(142, 140, 84),
        walls=((226, 206, 178), (196, 214, 216), (232, 190, 170), (206, 216, 186), (236, 230, 216), (170, 180, 206)),
        roofs=((206, 202, 196), (176, 168, 158), (150, 146, 144), (218, 210, 196)), leaves=((50, 70, 36), (132, 148, 88)),
        centre_line=(222, 178, 52), gables=False, sun_deg=(215, 55), shade=0.68,
        satellite_cast=(1.05, 1.0, 0.93), panorama_cast=(1.03, 1.0, 0.97), outside=0.04),
    "Chicago": Style(
        latitude=41.8890, longitude=-87.6690, turn_deg=0, bend=1.2, block=(62, 124), streets=(9, 10, 14, 19), pavement=4.0,
        lot=(8, 15), setback=(1, 4), storeys=(2, 6), green=0.65, parks=0.08, closed=0.06, parked=0.3,
        asphalt=(78, 78, 80), paving=(186, 182, 172), lawn=(110, 132, 66),
        walls=((158, 82, 62), (128, 70, 56), (190, 164, 124), (146, 110, 88), (176, 176, 172)),
        roofs=((108, 104, 100), (84, 80, 80), (162, 158, 150), (128, 106, 92)), leaves=((44, 72, 26), (126, 150, 60)),
        centre_line=(226, 226, 220), gables=False, sun_deg=(120, 38), shade=0.66,
        satellite_cast=(1.0, 1.01, 0.95), panorama_cast=(1.02, 1.0, 0.98), outside=0.07),
}  # fmt: skip


@dataclass
class City:
    """A district as rasters, H x W pixels, all uint8; edit them before rendering to change the world."""

    style: Style
    metres_per_pixel: float
    origin: tuple  # Web Mercator pixel (row, col) of the raster's corner
    centre: tuple  # (u, v) = (0, 0) in the raster
    phases: tuple  # of the streets' swing along u and v
    colour: np.ndarray  # (H, W, 3) RGB of the ground, roofs and everything else solid, under even light
    height: np.ndarray  # its height above the street, quarter metres
    canopy: np.ndarray  # height of the tree crown over it, quarter metres, 0 for none; crowns begin at the cameras' height
    leaf: np.ndarray  # tone of that crown
    wall: np.ndarray  # row of `facades` that the vertical faces show; 0: they continue `colour`
    drivable: np.ndarray  # 255 on carriageways
    facades: dict = field(default_factory=dict)
    bays: list = field(default_factory=list)  # ((u, v), axis) of parked cars off the streets
    mapped: list = field(default_factory=list)  # (points (u, v), tags) of what OpenStreetMap would show
    # time ("satellite", "panorama") -> (outlines (n, 3, 4, 2) of body, windows and roof in (row, col), colours (n, 3))
    cars: dict = field(default_factory=dict)

    def to_px(self, points):
        """(n, 2) points (u, v) in metres -> (n, 2) raster (row, col)."""
        u, v = np.asarray(points, float).T
        bend = self.style.bend
        u, v = (
            u + bend * np.sin(v / self.style.swing[0] + self.phases[0]),
            v + bend * np.sin(u / self.style.swing[1] + self.phases[1]),
        )
        u = u + self.style.skew * v
        turn = np.radians(self.style.turn_deg)
        east, south = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)
        return np.stack([south, east], 1) / self.metres_per_pixel + self.centre

    def shows(self, outline):
        """Whether the raster may show something of a shape given by its outline (u, v)."""
        points = self.to_px(outline)
        return bool((points.max(0) > 0).all() and (points.min(0) < self.height.shape).all())

    def fill(self, outline, colour=None, **layers):
        """Fill a polygon given in metres (u, v) with a colour and with a value in each named layer."""
        points = fixed_point(self.to_px(outline))
        if colour is not None:
            cv2.fillPoly(self.colour, [points], [float(c) for c in colour], cv2.LINE_AA, 4)
        for name, value in layers.items():
            cv2.fillPoly(getattr(self, name), [points], int(value), cv2.LINE_8, 4)

    def note(self, points, tags, closed=True):
        """Keep points (u, v), in metres, for the map: an outline, or a line that does not close."""
        self.mapped.append((np.concatenate([points, points[:1]]) if closed else points, tags))

    def at(self, time, row=None, col=None):
        """The world with the cars of a time; of the whole raster, or of what is seen from (row, col) of it."""
        corner = np.zeros(2, int) if row is None else np.array([row, col], int) - MARGIN_PX
        window = tuple(slice(start, None if row is None else start + 2 * MARGIN_PX) for start in corner)
        crop = {name: getattr(self, name)[window] for name in ("colour", "height", "canopy", "leaf", "wall", "drivable")}
        crop.update(colour=crop["colour"].copy(), height=crop["height"].copy())
        origin, centre = (tuple(np.subtract(pair, corner)) for pair in (self.origin, self.centre))
        outlines, colours = self.cars[time]
        some_corner = outlines[:, 0, 0] - corner
        seen = ((some_corner > -60) & (some_corner < np.add(crop["height"].shape, 60))).all(1)
        for (body, windows, roof), colour in zip(fixed_point(outlines[seen] - corner), colours[seen].tolist(), strict=True):
            for outline, paint, height_m in ((body, colour, 1.0), (windows, (38, 42, 48), 1.5), (roof, colour, 1.5)):
                cv2.fillConvexPoly(crop["colour"], outline, paint, cv2.LINE_AA, 4)
                cv2.fillConvexPoly(crop["height"], outline, int(height_m / QUARTER_M), cv2.LINE_8, 4)
        return replace(self, origin=origin, centre=centre, **crop)


def rect(along, across, axis=0):
    """Outline (u, v) of a rectangle in metres, its long sides in pieces short enough to follow a bent street."""
    pieces = 2 + int(abs(along[1] - along[0]) / 8)
    there = np.linspace(along[0], along[1], pieces)
    outline = np.column_stack([np.append(there, there[::-1]), np.repeat(across, pieces)])
    return outline if axis == 0 else outline[:, ::-1]


def fixed_point(points):
    """(row, col) -> OpenCV's (x, y) in sixteenths of a pixel, whose pixel centres are whole numbers."""
    return np.rint((np.asarray(points)[..., ::-1] - 0.5) * 16).astype(np.int32)
