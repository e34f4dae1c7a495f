"""The world of mini-VIGOR: one synthetic district, as rasters on the Web Mercator pixel grid at zoom 20.

Satellite images are crops of these rasters, so names, labels and pixels agree exactly. Rasters use (row, col)
as `common.geometry` does. Streets and houses are planned in metres (u, v) along the street grid,
which `DrawnCity.to_px` turns, bends and scales.
"""

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import yaml

QUARTER_M = 0.25  # heights are stored as whole quarter metres: 63.75 m at most
MARGIN_PX = 900  # width of the world beyond the outermost cells; panoramas see this far
WHITE = (226, 226, 220)  # colour of painted marks


def generator(seed, *key):
    """A NumPy random generator that depends only on (seed, *key); key has integers and strings."""
    return np.random.default_rng([seed, *(zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key)])


def uniform(rng, low, high, share=1):
    """A number in [low, high) with probability `share`, else 0."""
    return rng.uniform(low, high) if share == 1 or rng.random() < share else 0.0


@dataclass(frozen=True)
class Style:
    """The look of a city. Lengths are in metres, colours are RGB, shares are from 0 to 1."""

    latitude: float
    longitude: float
    turn_deg: float  # of the street grid, clockwise from north
    bend: float  # amplitude of the streets' sideways swing
    block: tuple  # mean distance between streets, along u and v
    streets: tuple  # carriageway widths to choose from
    pavement: float
    lot: tuple  # least and greatest width of a house
    setback: tuple  # least and greatest depth of a front garden
    storeys: tuple  # least and greatest number
    green: float  # share of trees, lawns and hedges
    parks: float  # share of blocks
    closed: float  # share of street segments that are footpaths
    parked: float  # share of the kerb taken by cars
    asphalt: tuple
    paving: tuple
    lawn: tuple
    walls: tuple
    roofs: tuple
    leaves: tuple  # darkest and lightest
    centre_line: tuple
    kerb_colour: tuple
    gables: bool
    sun_deg: tuple  # bearing and elevation of the sun in the satellite image
    shade: float  # light left in a shadow
    satellite_cast: tuple  # gain of R, G, B
    panorama_cast: tuple
    outside: float  # share of semi-positives that leave the panorama outside
    # Only varied worlds use the rest; the defaults are those of the four cities.
    swing: tuple = (47.0, 53.0)  # length scales of the streets' bends
    skew: float = 0.0  # shear of the grid: metres along u for each metre along v
    marked: float = 1.0  # share of street segments with any mark
    paint: tuple = WHITE  # colour of marks
    wear: float = 0.0  # share of the paint that is worn off
    kerb: float = 0.3  # width
    ground: tuple | None = None  # colour beside the kerbs; None: that of the paving
    verge: float = 0.0  # width of the grass between kerb and footpath
    footpath: float = 0.0  # width
    corner: float = 0.0  # radius of the kerbs at junctions
    driveways: float = 0.0  # share of lots
    islands: float = 0.0  # share of street ends
    roundabouts: float = 0.0  # share of junctions
    medians: float = 0.0  # share of wide streets
    slips: float = 0.0  # share of junction corners with a slip lane
    edges: float = 0.0  # share of streets with lines along the kerbs
    hatchings: float = 0.0  # share of street ends
    words: float = 0.0  # share of street ends
    squares: float = 0.0  # share of blocks
    fences: float = 0.0  # share of lots
    patchy: float = 1.0  # amount of repairs in the asphalt
    boxes: float = 1.0  # amount of coloured paint
    mixed: float = 0.0  # difference between the surfaces of streets
    poles: float = 0.0  # distance between lamps, signs and people along a kerb; 0: none
    crowns: tuple | None = None  # least and greatest radius of a mean crown; None: 2.2 for each
    tops: tuple = (4.5, 9.0)  # least and greatest height of trees
    edge_of_crown: float = 0.7  # height of a crown at its edge, as a share of the tree's height
    ragged: float = 0.0  # share of a crown that lets the ground through
    under_trees: bool = False  # whether a panorama may be taken under a tree
    soft: float = 0.0  # width over which shadows fade in the satellite image
    blue: float = 0.0  # blue cast of shadows
    lean_deg: tuple = (0.0, 0.0)  # of the satellite's view: angle off the vertical, bearing tops move to
    clear: float = 2.0  # free street around a camera
    depth: tuple = (11.0, 18.0)  # least and greatest depth of a house
    traffic: float = 0.0  # vehicles for each metre of a lane; 0: now and then a car
    # Downtown's own.
    avenues: float = 0.0  # share of streets with a lane for buses or bicycles; 0: marks as in other towns
    works: float = 0.0  # mean number of works along 100 m of street
    kiosks: float = 0.0  # mean number of kiosks, planters and shelters along 100 m of street
    sheds: float = 0.0  # mean number of roofs over the pavement along 100 m of street
    railways: float = 0.0  # share of districts with an elevated railway
    # The country's own.
    fields: float = 0.0  # share of the land that is ploughed or sown; 0: a town
    woods: float = 0.0  # share of the land
    farms: float = 0.0  # share of pieces of land beside a road with a house
    plot: float = 0.0  # mean side of a piece of land
    hedges: float = 0.0  # share of the borders of pieces
    shoulder: float = 0.0  # width of the gravel or soil beside a road
    ditches: float = 0.0  # share of the sides of roads
    unpaved: float = 0.0  # share of roads of gravel or soil
    wires: float = 0.0  # distance between power poles; 0: none
    twins: float = 0.0  # share of districts whose main road has two carriageways


TABLES = yaml.safe_load(Path(__file__).with_name("styles.yaml").read_text("utf-8"))
STYLES = {name: Style(**values) for name, values in TABLES["cities"].items()}


@dataclass
class DrawnCity:
    """A district as rasters of H x W pixels, all uint8; edit them before rendering to change the world."""

    style: Style
    metres_per_pixel: float
    origin: tuple  # Web Mercator pixel (row, col) of the raster's corner
    centre: tuple  # raster (row, col) of (u, v) = (0, 0)
    phases: tuple  # of the streets' swing along u and v
    colour: np.ndarray  # (H, W, 3) RGB of the ground, roofs and everything else solid, under even light
    height: np.ndarray  # height of that above the street, quarter metres
    canopy: np.ndarray  # height of the tree crown, quarter metres, from the camera's height up; 0: none
    leaf: np.ndarray  # tone of that crown
    wall: np.ndarray  # row of `facades` that the vertical faces show; 0: they continue `colour`
    drivable: np.ndarray  # 255 on carriageways
    facades: dict
    deck: np.ndarray | None = (
        None  # height of the top of what hangs above the street, see `overhead`; 0: none
    )
    deck_tone: np.ndarray | None = None  # its grey
    bays: list = field(default_factory=list)  # centres (u, v) of parking bays off the streets, along v
    mapped: list = field(default_factory=list)  # (points (u, v), tags) of what OpenStreetMap would show
    # {time: (outlines (n, 3, 4, 2) in (row, col) of body, windows and roof, colours (n, 3))}
    cars: dict = field(default_factory=dict)

    def to_px(self, points):
        """(n, 2) points (u, v) in metres -> (n, 2) raster (row, col)."""
        style, (u, v), turn = self.style, np.asarray(points, float).T, np.radians(self.style.turn_deg)
        bent_u = u + style.bend * np.sin(v / style.swing[0] + self.phases[0])
        v = v + style.bend * np.sin(u / style.swing[1] + self.phases[1])
        u = bent_u + style.skew * v
        south, east = u * np.sin(turn) + v * np.cos(turn), u * np.cos(turn) - v * np.sin(turn)
        return np.stack([south, east], 1) / self.metres_per_pixel + self.centre

    def shows(self, outline):
        """Whether a shape with the outline (u, v) may be partly in the raster."""
        points = self.to_px(outline)
        return bool((points.max(0) > 0).all() and (points.min(0) < self.height.shape).all())

    def is_free(self, place, layer):
        """Whether (row, col) lies in the raster and a named layer is 0 there."""
        inside = (place >= 0).all() and (place < self.height.shape).all()
        return bool(inside and not getattr(self, layer)[tuple(place.astype(int))])

    def fill(self, outline, colour=None, **layers):
        """Fill a polygon given in metres (u, v) with a colour and with a value in each named layer."""
        points = fixed_point(self.to_px(outline))
        if colour is not None:
            cv2.fillPoly(self.colour, [points], [float(c) for c in colour], cv2.LINE_AA, 4)
        for name, value in layers.items():
            cv2.fillPoly(getattr(self, name), [points], int(value), cv2.LINE_8, 4)

    def fill_disc(self, x, y, radius, colour=None, **layers):
        """Fill a disc like `fill`; centre and radius are in sixteenths of a pixel, see `fixed_point`."""
        if colour is not None:
            cv2.circle(self.colour, (x, y), radius, colour, -1, cv2.LINE_AA, 4)
        for name, value in layers.items():
            cv2.circle(getattr(self, name), (x, y), radius, int(value), -1, cv2.LINE_8, 4)

    def note(self, points, tags, closed=True):
        """Record points (u, v), in metres, for the map: an outline, or an open line."""
        self.mapped.append((np.concatenate([points, points[:1]]) if closed else points, tags))

    def at(self, time, row=None, col=None):
        """The world with the cars of a time: all of it, or the part that is visible from (row, col)."""
        corner = np.zeros(2, int) if row is None else np.array([row, col], int) - MARGIN_PX
        window = tuple(slice(start, None if row is None else start + 2 * MARGIN_PX) for start in corner)
        layers = ("colour", "height", "canopy", "leaf", "wall", "drivable")
        layers += () if self.deck is None else ("deck", "deck_tone")
        crop = {name: getattr(self, name)[window] for name in layers}
        crop.update(colour=crop["colour"].copy(), height=crop["height"].copy())
        origin, centre = (tuple(np.subtract(pair, corner)) for pair in (self.origin, self.centre))
        outlines, colours = self.cars[time]
        some_corner = outlines[:, 0, 0] - corner
        seen = ((some_corner > -60) & (some_corner < np.add(crop["height"].shape, 60))).all(1)
        for car, colour in zip(fixed_point(outlines[seen] - corner), colours[seen].tolist(), strict=True):
            length_m = np.hypot(*(car[0, 1] - car[0, 0]) / 16) * self.metres_per_pixel
            paints = (colour, 1.0), ((38, 42, 48), 1.5), (colour, 1.5)
            if self.style.traffic and length_m > 6.5:  # a lorry or a bus
                paints = (colour, 2.75), (colour, 3.0), (colour, 3.0)
            for outline, (paint, height_m) in zip(car, paints, strict=True):
                cv2.fillConvexPoly(crop["colour"], outline, paint, cv2.LINE_AA, 4)
                cv2.fillConvexPoly(crop["height"], outline, int(height_m / QUARTER_M), cv2.LINE_8, 4)
        return replace(self, origin=origin, centre=centre, **crop)


def rect(along, across, axis=0):
    """Outline (u, v) of a rectangle in metres; pieces of its long sides let it follow a bent street."""
    there = np.linspace(along[0], along[1], 2 + int(abs(along[1] - along[0]) / 8))
    outline = np.column_stack([np.append(there, there[::-1]), np.repeat(across, len(there))])
    return outline if axis == 0 else outline[:, ::-1]


def circle(radius, count):
    """(count, 2) points of a circle around (0, 0); the last equals the first."""
    turn = np.linspace(0, 2 * np.pi, count)
    return radius * np.stack([np.cos(turn), np.sin(turn)], 1)


def fixed_point(points):
    """(row, col) -> OpenCV's (x, y) in sixteenths of a pixel, whose pixel centres are whole numbers."""
    return np.rint((np.asarray(points)[..., ::-1] - 0.5) * 16).astype(np.int32)


def bands(height):
    """Slices of up to 512 rows each, to process rasters with little memory."""
    return [slice(top, min(top + 512, height)) for top in range(0, height, 512)]
