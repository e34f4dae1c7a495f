"""Writes a city in VIGOR's layout: satellite images, street images and lists, from a table and imagery."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from common import geometry
from common.errors import UserError
from common.files import locked, remove_leftovers, resumable, write_bytes
from common.parallel import in_threads
from common.settings import NOT_NEGATIVE, POSITIVE, SEED, SHARE, Choice, Settings, setting
from dataset.cameras import write_cameras
from dataset.city.grid import TileGrid, near_test, split_by_blocks, split_by_group
from dataset.city.provider import Missing
from dataset.city.street_images import write_panorama, write_photograph
from dataset.decoding import encode, is_whole
from dataset.lists import LABEL_TABLE, label_line, lists_of, satellite_at, write_label_table, write_lists
from dataset.manifest import read_own_manifest, write_manifest
from dataset.masks.osm import count_outside

MANIFEST, TABLE, WHAT = "build.json", "panoramas.csv", "a city of python -m dataset.city"
COLUMNS = ("name", "file", "bytes", "modified")
COLUMNS += ("latitude", "longitude", "heading", "camera_height", "sequence", "part")
SPLITS = ("table", "blocks", "sequence")
COVERAGES = ("around", "box")
_FLAGS = {"panoramas": "--panoramas", "photographs": "--photos"}
_KIND = "street_images"  # the manifest's key for the kind, which manifests of panoramas lack
_VERSION = 1  # raise it with every change to what is written, so that two versions never mix in one folder
_ENOUGH = 20  # failed images after which a provider is no longer asked
_SWAPPED_M = 1000.0  # distance from the imagery at which swapped coordinates are considered
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 3)
GRID = "satellite images"  # the heading of flags
_grid, _split = (partial(setting, group=name) for name in (GRID, "training and test"))


@dataclass(frozen=True)
class Layout(Settings):
    """Which satellite images a city gets, and how its street images are split into training and test."""

    coverage: str = _grid(
        "around",
        Choice(COVERAGES),
        "around: the four images around each panorama; box: all images of their bounding box, for search",
    )
    split: str = _split(
        None,
        Choice(SPLITS),
        "by the table's column, blocks of the map, or sequences (default: table if possible, else blocks)",
    )
    test_share: float = _split(0.25, SHARE, "approximate share of test panoramas", metavar="SHARE")
    block: float = _split(300.0, POSITIVE, "side of a block of the map, metres", metavar="M")
    gap: float = _split(
        35.0, NOT_NEGATIVE, "metres between training and test panoramas; unused by --split table", metavar="M"
    )
    seed: int = _split(0, SEED, "seed of the split", metavar="N")


@dataclass(eq=False)
class BuiltCity:
    """A written city, for the report."""

    folder: Path
    panoramas: list  # of `PanoramaRow`
    positions: np.ndarray  # (n, 2) (row, col) on the map
    parts: np.ndarray  # (n,) 'train', 'test', 'gap' or 'missing'
    layout: Layout  # with the split that was used
    satellites: dict  # {cell: (name, (latitude, longitude) as in the name)} of those written
    grid: TileGrid
    missing: list  # a line for each image that is not available
    manifest: dict  # as written, to be completed with a report

    @property
    def kind(self):
        """'panoramas' or 'photographs'."""
        return kind_of(self.panoramas)

    def finish(self, report):
        """Mark the city as complete and store its report, a dict."""
        manifest = self.manifest | {"report": report}
        write_manifest(self.folder / MANIFEST, manifest, complete=True)


def build_city(root, city, panoramas, imagery, layout, *, through=None, on_missing="error", workers=1):
    """Write a city into a root in VIGOR's layout, or finish it. Returns a `BuiltCity`.

    panoramas: `PanoramaRow`s, either all or none with cameras.
    imagery: from `open_imagery`.
    through: (latitude, longitude) of the centre of an image on the grid, for `TileGrid`.
    on_missing: 'error', or 'skip' leaves out panoramas without all four satellite images.

    Files of an earlier run stay unless their line of the table has changed. Raises UserError.
    """
    folder, lists, kind = Path(root) / city, lists_of(root, city), kind_of(panoramas)
    positions = map_positions(panoramas)
    check_extents(panoramas, [imagery.extent], "the imagery")
    has_split = any(panorama.split for panorama in panoramas)
    layout = replace(layout, split=layout.split or ("table" if has_split else "blocks"))
    parts, grid = _parts(panoramas, positions, layout), TileGrid(through)
    four = grid.four(positions)
    used = np.unique(four.reshape(-1, 2), axis=0)
    cells = grid.filled(used) if layout.coverage == "box" else used
    centres = grid.centre(cells)
    satellites = dict(zip(map(tuple, cells.tolist()), map(satellite_at, centres), strict=True))
    manifest = {"build": _VERSION, "imagery": imagery.name, "grid": grid.origin.tolist()}
    with locked(folder, "is building"), resumable(folder):
        earlier = read_own_manifest(folder / MANIFEST, WHAT, manifest)
        held = earlier.get(_KIND, "panoramas") if earlier else kind
        if held != kind:
            raise UserError(f"{folder}: holds a city of {held}; give {_FLAGS[held]}, or another --city")
        if kind != "panoramas":
            manifest[_KIND] = kind
        for place in (folder / "satellite", folder / "panorama", lists):
            place.mkdir(parents=True, exist_ok=True)
        write_manifest(folder / MANIFEST, manifest, complete=False)
        needed = set(map(tuple, used.tolist()))
        lost = _write_satellites(folder / "satellite", grid, satellites, imagery, needed, on_missing, workers)
        if on_missing == "error" and (absent := [line for cell, line in lost.items() if cell in needed]):
            raise UserError(
                f"{len(absent)} of the {len(needed)} satellite images around the {kind} are not available. "
                f"The first: {absent[0]}. The same command tries again; --on_missing skip leaves {kind} out"
            )
        if lost.keys() >= needed:
            raise UserError(f"no satellite image is available. The first: {next(iter(lost.values()))}")
        satellites = {cell: satellite for cell, satellite in satellites.items() if cell not in lost}
        cells_of = [list(map(tuple, cells)) for cells in four.tolist()]
        parts[[not all(cell in satellites for cell in cells) for cells in cells_of]] = "missing"
        _write_street_images(folder, panoramas, parts, workers)
        kept = np.flatnonzero(parts != "missing")
        lines = []
        for i in kept:
            gps = panoramas[i].latitude, panoramas[i].longitude
            lines.append(label_line(panoramas[i].name, gps, [satellites[cell] for cell in cells_of[i]]))
        train, test = (np.flatnonzero(parts[kept] == part) for part in ("train", "test"))
        if any(panorama.accuracy_m for panorama in panoramas):
            write_label_table(lists, [(row.name, 0.0, row.accuracy_m) for row in panoramas])
        else:
            (lists / LABEL_TABLE).unlink(missing_ok=True)
        write_lists(lists, [name for name, _ in satellites.values()], lines, train, test)
        remove_leftovers(folder)
    missing = list(lost.values())
    return BuiltCity(folder, panoramas, positions, parts, layout, satellites, grid, missing, manifest)


def kind_of(panoramas):
    """The kind of a table's `PanoramaRow`s, 'panoramas' or 'photographs'."""
    return "photographs" if panoramas[0].camera is not None else "panoramas"


def map_positions(panoramas):
    """(n, 2) (row, col) on the map of `PanoramaRow`s."""
    gps = np.array([(panorama.latitude, panorama.longitude) for panorama in panoramas])
    return np.stack(geometry.mercator_px(*gps.T), 1)


def check_extents(panoramas, extents, source):
    """Raises UserError where panoramas lie outside all extents, with a hint if their coordinates are swapped.

    extents: (south, west, north, east) on the map, or None where unknown · source: what has them, for the
    message.
    """
    if None in extents:
        return
    outside, far, metres = count_outside(map_positions(panoramas), extents)
    if not outside:
        return
    furthest = panoramas[far]
    gps = furthest.latitude, furthest.longitude
    line = (
        f"{outside} of {len(panoramas)} {kind_of(panoramas)} lie outside {source}; the furthest, "
        f"{furthest.file} at {gps[0]:g} {gps[1]:g}, by {geometry.distance_in_words(metres)}"
    )
    if metres > _SWAPPED_M and abs(gps[1]) <= 85:
        swapped = np.array([geometry.mercator_px(*gps[::-1])])
        if not count_outside(swapped, extents)[0]:
            line += f"; {gps[1]:g} {gps[0]:g} lies inside: are latitude and longitude swapped in the table?"
    raise UserError(line)


def _parts(panoramas, positions, layout):
    """(n,) 'train', 'test' or 'gap'. Raises UserError for an empty value in the table, and an empty part."""
    column = {"table": "split", "sequence": "sequence"}.get(layout.split)
    groups = [getattr(panorama, column) for panorama in panoramas] if column else []
    if None in groups:
        raise UserError(f"{panoramas[groups.index(None)].file}: the table's column {column} is empty there")
    if layout.split == "table":
        return np.array(groups, dtype="<U7")
    if layout.split == "blocks":
        is_test = split_by_blocks(positions, layout.block, layout.test_share, layout.seed)
        remedy = f"try a smaller --block than {layout.block:g} or another --seed"
    else:
        is_test = split_by_group(groups, layout.test_share, layout.seed)
        remedy = "the table has few sequences; try another --seed"
    scale = float(geometry.metres_per_pixel(np.mean([panorama.latitude for panorama in panoramas])))
    parts = np.where(is_test, "test", "train").astype("<U7")
    parts[near_test(positions, is_test, scale, layout.gap)] = "gap"
    counts = [f"{int((parts == part).sum())} {part}" for part in ("train", "test", "gap")]
    if layout.test_share not in (0, 1) and not {"train", "test"} <= set(parts.tolist()):
        split = f"--split {layout.split} --gap {layout.gap:g}"
        raise UserError(f"{split}: {len(panoramas)} {kind_of(panoramas)} give {', '.join(counts)}; {remedy}")
    return parts


def _write_satellites(folder, grid, satellites, imagery, needed, on_missing, workers):
    """Write the missing satellite images; returns {cell: line} of those that are not available."""
    lost, written = {}, []

    def write(item):
        cell, (name, _) = item
        try:
            if not is_whole(folder / name):
                if len(needed & lost.keys()) >= _ENOUGH and (on_missing == "error" or not written):
                    raise Missing("not requested, since too many others are not available")
                image = imagery.read(grid.corner(cell))
                write_bytes(folder / name, encode(image, ".png", *_PNG))
            written.append(cell)
        except Missing as error:
            lost[cell] = f"{name}: {error}"

    list(in_threads(write, list(satellites.items()), workers, "satellite images"))
    return lost


def _write_street_images(folder, panoramas, parts, workers):
    """Write the city's table, and the street images that are missing or whose line in it has changed."""
    earlier = _read_written(folder / TABLE)
    rows = [_row(panorama, part) for panorama, part in zip(panoramas, parts, strict=True)]
    for row in rows:
        if earlier.get(row["name"], {}) | {"part": row["part"]} != row:  # another file, another heading
            (folder / "panorama" / row["name"]).unlink(missing_ok=True)
    table = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    write_bytes(folder / TABLE, table.encode())
    write = write_panorama
    if kind_of(panoramas) == "photographs":
        write_cameras(folder, {panorama.name: panorama.camera for panorama in panoramas})
        write = write_photograph

    def write_missing(panorama):
        path = folder / "panorama" / panorama.name
        if not is_whole(path):
            write(panorama, path)

    available = [panorama for panorama, part in zip(panoramas, parts, strict=True) if part != "missing"]
    list(in_threads(write_missing, available, workers, kind_of(panoramas)))


def _row(panorama, part):
    """The line of a panorama in the city's own table, {column: text}."""
    pose = panorama.latitude, panorama.longitude, panorama.heading_deg, panorama.camera_height_m
    values = panorama.name, panorama.listed, *panorama.stamp, *pose, panorama.sequence, part
    return {name: "" if value is None else str(value) for name, value in zip(COLUMNS, values, strict=True)}


def _read_written(path):
    """{name: row} of the table of an earlier run, {} where there is none."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return {row["name"]: row for row in table.to_dict("records")}
    except (OSError, ValueError, KeyError):
        return {}
