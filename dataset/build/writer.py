"""Builds a city in VIGOR's layout: a table of panoramas and imagery in, satellite images, panoramas and lists out."""

import csv
import io
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from common import geometry
from common.errors import UserError
from common.files import locked, remove_leftovers, resumable, write_bytes
from common.parallel import in_threads
from common.settings import COUNT_OR_NONE, NOT_NEGATIVE, POSITIVE, SHARE, Choice, Settings, setting
from dataset.build.grid import Grid, near_test, split_by_blocks, split_by_group
from dataset.build.panorama import write_panorama
from dataset.build.photograph import write_photograph
from dataset.build.provider import Missing
from dataset.cameras import write_cameras
from dataset.images import encode, is_whole
from dataset.lists import label_line, satellite_at, write_lists
from dataset.manifest import read_own_manifest, write_manifest

MANIFEST, TABLE, WHAT = "build.json", "panoramas.csv", "a city of python -m dataset.build"
SPLITS = ("table", "blocks", "sequence")
COVERAGES = ("around", "box")
COLUMNS = ("name", "file", "bytes", "modified", "latitude", "longitude", "heading", "camera_height", "sequence", "part")
_KIND = "street_images"  # the manifest's word for what they are, where they are no panoramas
_VERSION = 1  # raise it with every change to what is written, so that two kinds never mix in one folder
_ENOUGH = 20  # images in vain, after which a provider is left alone
_FAR_M = 1000.0  # from the imagery, where latitude and longitude swapped would be looked at
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 3)
_laid = partial(setting, group="grid and split")


@dataclass(frozen=True)
class Layout(Settings):
    """Which satellite images a city gets, and which of its panoramas train and test."""

    coverage: str = _laid(
        "around", Choice(COVERAGES), "around: the four images around each panorama; box: all between the outermost, for search"
    )
    split: str = _laid(
        None, Choice(SPLITS), "by the table's column, by blocks of the map, or by whole sequences (default: table, else blocks)"
    )
    test_share: float = _laid(0.25, SHARE, "of the panoramas, about", metavar="SHARE")
    block: float = _laid(300.0, POSITIVE, "side of a block of the map", metavar="M")
    gap: float = _laid(
        35.0, NOT_NEGATIVE, "metres around test panoramas in which none trains; not where the table splits", metavar="M"
    )
    seed: int = _laid(0, COUNT_OR_NONE, "of the split", metavar="N")


@dataclass(eq=False)
class Built:
    """A city that stands: for the report."""

    folder: Path
    panoramas: list  # of `Panorama`
    positions: np.ndarray  # (n, 2) (row, col) on the map
    parts: np.ndarray  # (n,) 'train', 'test', 'gap' or 'missing'
    layout: Layout  # with the split that was chosen
    satellites: dict  # {cell: (name, (latitude, longitude) as in it)} of those written
    grid: Grid
    missing: list  # lines on images that could not be had, and were left out

    @property
    def what(self):
        """What its street images are called."""
        return kind_of(self.panoramas)


def build_city(root, city, panoramas, imagery, layout, *, through=None, on_missing="error", workers=1):
    """Write a city into a root in VIGOR's layout, or finish it. Returns what was `Built`.

    panoramas: `Panorama`s, all or none of them photographs · imagery: what `open_imagery` gave · layout: a `Layout` · through:
    (latitude, longitude) of some image's centre, for `Grid` · on_missing: 'error', or 'skip' leaves out panoramas of which a
    satellite image cannot be had.

    What is there and of the same table's line stays; what cannot be had is tried again by the same command. Raises UserError.
    """
    folder, lists = Path(root) / city, Path(root) / "splits__corrected" / city
    positions = map_positions(panoramas)
    check_extents(panoramas, positions, [imagery.extent], "the imagery")
    layout = replace(layout, split=layout.split or ("table" if any(one.split for one in panoramas) else "blocks"))
    parts, grid = _parts(panoramas, positions, layout), Grid(through)
    four = grid.four(positions)
    used = np.unique(four.reshape(-1, 2), axis=0)
    cells = grid.filled(used) if layout.coverage == "box" else used
    satellites = {tuple(cell): satellite_at(centre) for cell, centre in zip(cells.tolist(), grid.centre(cells), strict=True)}
    manifest = {"build": _VERSION, "imagery": imagery.name, "grid": grid.origin.tolist()}
    with locked(folder, "is building"):
        with resumable(folder):
            there, kind = read_own_manifest(folder / MANIFEST, WHAT, manifest), kind_of(panoramas)
            if there and there.get(_KIND, "panoramas") != kind:
                flag = {"photographs": "--photos", "panoramas": "--panoramas"}[there.get(_KIND, "panoramas")]
                raise UserError(f"{folder}: holds a city of {there.get(_KIND, 'panoramas')}; give {flag}, or another --city")
            if kind != "panoramas":
                manifest[_KIND] = kind
            for place in (folder / "satellite", folder / "panorama", lists):
                place.mkdir(parents=True, exist_ok=True)
            write_manifest(folder / MANIFEST, manifest, complete=False)
            needed = set(map(tuple, used.tolist()))
            lost = _write_satellites(folder / "satellite", grid, satellites, imagery, needed, on_missing, workers)
            if on_missing == "error" and (absent := [line for cell, line in lost.items() if cell in needed]):
                raise UserError(
                    f"{len(absent)} of {len(needed)} satellite images that panoramas need cannot be had, and the city stays "
                    f"unfinished. The first: {absent[0]}. The same command tries them again; --on_missing skip leaves their "
                    "panoramas out"
                )
            if lost.keys() >= needed:
                raise UserError(f"no satellite image can be had. The first: {next(iter(lost.values()))}")
            satellites = {cell: name for cell, name in satellites.items() if cell not in lost}
            keys = [list(map(tuple, cells)) for cells in four.tolist()]
            parts[[not all(key in satellites for key in four) for four in keys]] = "missing"
            _write_panoramas(folder, panoramas, parts, workers)
            there = np.flatnonzero(parts != "missing")
            lines = [label_line(panoramas[i].name, panoramas[i][2:4], [satellites[key] for key in keys[i]]) for i in there]
            train, test = (np.flatnonzero(parts[there] == part) for part in ("train", "test"))
            write_lists(lists, [name for name, _ in satellites.values()], lines, train, test)
            remove_leftovers(folder)
    return Built(folder, panoramas, positions, parts, layout, satellites, grid, list(lost.values()))


def kind_of(panoramas):
    """What the `Panorama`s of a table are called, 'panoramas' or 'photographs'."""
    return "photographs" if panoramas[0].camera else "panoramas"


def map_positions(panoramas):
    """(n, 2) (row, col) on the map of `Panorama`s."""
    return np.stack(geometry.mercator_px(*np.array([one[2:4] for one in panoramas]).T), 1)


def finish(built, report):
    """Call a city complete, with what there is to say of it."""
    manifest = read_own_manifest(built.folder / MANIFEST, WHAT, {})
    write_manifest(built.folder / MANIFEST, manifest | {"report": report}, complete=True)


def check_extents(panoramas, positions, extents, what):
    """Raises UserError where panoramas lie in none of some extents: how many, how far; and where swapped degrees explain it.

    positions: (n, 2) on the map · extents: (south, west, north, east) there, or None where one does not tell · what: has them.
    """
    if None in extents:
        return
    boxes = np.array(extents).T[..., None]
    beyond = geometry.outside_box(*positions.T, boxes).min(0)
    if not beyond.any():
        return
    far = int(beyond.argmax())
    latitude, longitude = panoramas[far][2:4]
    metres = beyond[far] * geometry.metres_per_pixel(latitude)
    line = (
        f"{int((beyond > 0).sum())} of {len(panoramas)} {kind_of(panoramas)} lie outside {what}; the furthest, "
        f"{panoramas[far].file} at {latitude:g} {longitude:g}, by {geometry.distance_in_words(metres)}"
    )
    swappable = metres > _FAR_M and abs(longitude) <= 85
    if swappable and not geometry.outside_box(*geometry.mercator_px(longitude, latitude), boxes).all():
        line += f"; {longitude:g} {latitude:g} lies inside: are latitude and longitude swapped in the table?"
    raise UserError(line)


def _parts(panoramas, positions, layout):
    """(n,) 'train', 'test' or 'gap' of panoramas at positions (n, 2) on the map."""
    given = [one.split for one in panoramas]
    scale = float(geometry.metres_per_pixel(np.mean([one.latitude for one in panoramas])))
    if layout.split == "table":
        if None in given:
            raise UserError(f"{panoramas[given.index(None)].file}: the table's column split is empty there; train or test")
        return np.array(given, dtype="<U7")
    if layout.split == "blocks":
        is_test = split_by_blocks(positions, layout.block, layout.test_share, layout.seed)
        remedy = f"a smaller --block than {layout.block:g} or another --seed may do"
    else:
        sequences = [one.sequence for one in panoramas]
        if None in sequences:
            raise UserError(f"{panoramas[sequences.index(None)].file}: the table's column sequence is empty there")
        is_test = split_by_group(sequences, layout.test_share, layout.seed)
        remedy = "the table's sequences are few; another --seed may do"
    parts = np.where(is_test, "test", "train").astype("<U7")
    parts[near_test(positions, is_test, scale, layout.gap)] = "gap"
    if layout.test_share not in (0, 1) and not {"train", "test"} <= set(parts.tolist()):
        train, test, gap = (int((parts == part).sum()) for part in ("train", "test", "gap"))
        raise UserError(
            f"--split {layout.split}: of {len(panoramas)} {kind_of(panoramas)} {train} would train, {test} test and {gap} stand "
            f"within --gap {layout.gap:g} m of those; {remedy}"
        )
    return parts


def _write_satellites(folder, grid, satellites, imagery, needed, on_missing, workers):
    """Write what is missing; returns {cell: line} of those that could not be had, or were not asked for after enough in vain."""
    lost, had = {}, []

    def write(item):
        cell, (name, _) = item
        path = folder / name
        if is_whole(path):
            had.append(cell)
            return
        try:
            if len(needed & lost.keys()) >= _ENOUGH and (on_missing == "error" or not had):
                raise Missing("not asked for, after so many in vain")
            write_bytes(path, encode(imagery.read(grid.corner(cell)), ".png", *_PNG))
            had.append(cell)
        except Missing as error:
            lost[cell] = f"{path.name}: {error}"

    for _ in in_threads(write, list(satellites.items()), workers, "satellite images"):
        pass
    return lost


def _write_panoramas(folder, panoramas, parts, workers):
    """Write those that are missing, or whose line in the table has changed, and the table of them all."""
    written = _read_written(folder / TABLE)
    rows = [_row(one, part) for one, part in zip(panoramas, parts, strict=True)]
    for row in rows:
        before = written.get(row["name"], {})
        if any(before.get(column) != row[column] for column in COLUMNS[:-1]):  # another file, another heading
            (folder / "panorama" / row["name"]).unlink(missing_ok=True)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_bytes(folder / TABLE, text.getvalue().encode())
    if panoramas[0].camera:
        write_cameras(folder, {one.name: one.camera for one in panoramas})

    def write(panorama):
        path = folder / "panorama" / panorama.name
        if not is_whole(path):
            (write_photograph if panorama.camera else write_panorama)(panorama, path)

    todo = [one for one, part in zip(panoramas, parts, strict=True) if part != "missing"]
    for _ in in_threads(write, todo, workers, kind_of(panoramas)):
        pass


def _row(panorama, part):
    """A panorama's line of the table that is kept with the city, as text."""
    size, modified = panorama.stamp
    values = (panorama.name, panorama.listed, size, modified, *panorama[2:5], panorama.camera_height_m, panorama.sequence, part)
    return dict(zip(COLUMNS, ("" if value is None else str(value) for value in values), strict=True))


def _read_written(path):
    """{name: row} of the table that an earlier run left, {} where there is none."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return {row["name"]: row for row in csv.DictReader(file)}
    except (OSError, KeyError):
        return {}
