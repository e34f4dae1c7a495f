"""Is a VIGOR folder whole and readable? Looks at every list and at every image that the lists name.

    python -m dataset.check --dataset_root /data/VIGOR                          # headers and ends of files
    python -m dataset.check --dataset_root /data/VIGOR --decode --workers 8     # every pixel, as training reads them

All findings go to findings.csv in that folder, or where --output says; the exit status is 1 when one would break training.
"""

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from common import flags, settings
from common.errors import UserError
from common.files import replacing
from common.parallel import in_threads
from dataset import images, lists
from dataset.cameras import FILE, holds_photographs, read_cameras
from dataset.roots import find_root
from dataset.sets import refuse_other_sets

FAR_PX = 10.0  # at 640 px; the offsets of the real lists lie within 5.6 px of the positions by name
BAD_LIST, BAD_LINE, BAD_NAME = "list that cannot be read", "label line that does not parse", "name without coordinates"
BAD_CAMERAS = "photograph's camera that cannot be read"
FAR = "offset far from the name's position"  # the only kind that does not break training


class Finding(NamedTuple):
    """One thing that is wrong: its kind, a path relative to the root, a line counted from 1 or 0, what it is."""

    kind: str
    path: str
    line: int
    detail: str


def check_folder(root, *, use_mask=True, decode=False, workers=1):
    """All findings of a VIGOR folder, lists first, and the number of images that its lists name.

    decode: read every image as training does, not only its header and its end. Raises UserError where there are no lists.
    """
    findings, paths = [], set()
    for folder, suffix in lists.label_folders(root).values():
        for city in lists.label_cities(folder, suffix):
            paths |= check_city(root, folder / city, suffix, use_mask, findings)
    check = partial(check_image, root, decode=decode)
    findings += [finding for finding in in_threads(check, sorted(paths), workers, "checking") if finding]
    return findings, len(paths)


def check_city(root, folder, suffix, use_mask, findings):
    """The paths of all images that the lists of a city name. What is wrong with the lists is added to the findings."""
    panoramas, relative = [], folder.relative_to(root).as_posix()

    def attempt(read, what, kind, path, line=0, otherwise=None):
        try:
            return read(what)
        except (UserError, ValueError) as error:
            findings.append(Finding(kind, f"{relative}/{path}", line, str(error)))
            return otherwise

    satellites = attempt(lists.satellite_list, folder, BAD_LIST, lists.SATELLITE_LIST)
    if satellites is None:
        return set()
    nowhere = np.full((len(satellites), 2), np.nan)
    satellite_gps = attempt(
        partial(lists.coordinates, kind="satellite"), satellites, BAD_NAME, lists.SATELLITE_LIST, otherwise=nowhere
    )
    row_of = {name: row for row, name in enumerate(satellites)}
    for file in (f"{name}{suffix}.txt" for name in lists.LISTS):
        placed = []
        for number, line in enumerate(attempt(lists.read_lines, folder / file, BAD_LIST, file, otherwise=[]), 1):
            panoramas += line.split()[:1]
            label = attempt(partial(lists.parse_label, row_of=row_of), line, BAD_LINE, file, number) if line else None
            gps = attempt(partial(lists.coordinates, kind="panorama"), label[:1], BAD_NAME, file, number) if label else None
            if gps is not None:
                placed.append((number, gps[0], *label[1:]))
        if placed:
            numbers, gps, rows, offsets = (np.array(column) for column in zip(*placed, strict=True))
            by_offset, by_name = lists.offset_positions(offsets), lists.positions_by_name(gps, satellite_gps[rows])
            away = np.linalg.norm(by_offset - by_name, axis=-1).max(1)
            far = np.flatnonzero(away > FAR_PX)
            findings += [Finding(FAR, f"{relative}/{file}", int(numbers[i]), f"{away[i]:.1f} px") for i in far]
    if holds_photographs(root, folder.name):
        findings += _check_cameras(root, folder.name, panoramas)
    return lists.image_paths(folder.name, panoramas, satellites, use_mask)


def _check_cameras(root, city, photographs):
    """What is wrong with the cameras of a city's photographs."""
    path = f"{city}/{FILE}"
    try:
        cameras = read_cameras(root / path)
    except UserError as error:
        return [Finding(BAD_CAMERAS, path, 0, str(error))]
    return [Finding(BAD_CAMERAS, path, 0, f"no line for {name}") for name in sorted(set(photographs) - set(cameras))]


def check_image(root, path, decode):
    """The finding of one image, or None."""
    kind = Path(path).parent.name
    photograph = kind == "panorama" and holds_photographs(root, Path(path).parts[0])
    try:
        with open(root / path, "rb") as file:
            width, height = Image.open(file).size
            whole = images.ends_well(file)
    except FileNotFoundError:
        return Finding("missing mask" if kind == "point_prompt_mask" else "missing image", path, 0, "no such file")
    except (UnidentifiedImageError, Image.DecompressionBombError):
        empty = os.path.getsize(root / path) == 0
        return Finding("unreadable image", path, 0, "the file is empty" if empty else "its header is not that of an image")
    except OSError as error:
        return Finding("unreadable image", path, 0, error.strerror or str(error))
    size_fault = images.panorama_size_fault if kind == "panorama" else images.satellite_size_fault
    if not photograph and (fault := size_fault(width, height)):
        return Finding("image of another size", path, 0, fault)
    if decode or not whole:  # an odd end may follow a whole image: only decoding tells
        try:
            images.OriginalImages(root, width, (height, width), photograph).read(path)
        except UserError as error:
            return Finding("unreadable image" if whole else "truncated image", path, 0, str(error))
    return None


def write_findings(path, findings):
    """All findings as a CSV. Raises UserError where it cannot be written."""
    try:
        with replacing(path) as beside:
            beside.write_text(pd.DataFrame(findings, columns=Finding._fields).to_csv(index=False), "utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name a file that can with --output") from None


def summarise(findings):
    """One line for each kind of finding: how many, whether it breaks training, the first."""
    first = {finding.kind: finding for finding in reversed(findings)}
    for kind, count in Counter(finding.kind for finding in findings).items():
        place = f"{first[kind].path}, line {first[kind].line}" if first[kind].line else first[kind].path
        yield f"{count:8d}  {kind} ({'look at it' if kind == FAR else 'breaks training'}), the first: {place}"


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what to check")
    flags.add_dataset_root(group)
    group.add_argument("--decode", action="store_true", help="read every pixel; without it headers and ends of files")
    group.add_argument("--use_mask", type=settings.BOOLEAN, default=True, metavar="BOOL", help="False: masks do not matter")
    group.add_argument("--output", metavar="FILE", help="CSV of all findings; default: findings.csv in the folder itself")
    flags.add_workers(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    root = find_root(args.dataset_root)
    refuse_other_sets(root, "dataset.check")
    lists.label_folders(root)  # or nothing is written there
    output = Path(args.output or root / "findings.csv")
    if not output.exists():
        write_findings(output, [])  # or everything is checked in vain
    findings, count = check_folder(root, use_mask=args.use_mask, decode=args.decode, workers=args.workers)
    print("\n".join([f"{root}: {count} images named by its lists, {len(findings)} findings", *summarise(findings)]))
    write_findings(output, findings)
    print(f"findings are in {output}")
    if any(finding.kind != FAR for finding in findings):
        raise SystemExit(1)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
