"""Check whether a VIGOR folder is complete and readable: all lists, and all images that they name.

    python -m dataset.check --dataset_root /data/VIGOR                          # headers and ends of files
    python -m dataset.check --dataset_root /data/VIGOR --decode --workers 8     # every pixel

Labels are compared with their images and lists with each other: a position outside its satellite image, a
panorama that is listed twice or for training and test, an empty list. All findings go to findings.csv in that
folder, or to --output. The exit status is 1 if one breaks training.
"""

import os
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from common import flags, geometry, settings
from common.camera import WHOLE_DEG
from common.errors import UserError
from common.files import try_writing, write_bytes, writing
from common.parallel import in_threads
from common.view import ELEVATION
from dataset import decoding, images, lists
from dataset.cameras import FILE, holds_photographs, read_cameras
from dataset.roots import find_root
from dataset.sets import other_set

FAR_PX = 10.0  # at 640 px; the offsets of the real lists differ by up to 5.6 px from the positions by name
_OUTPUT = "make room, or set another --output"
BAD_LIST, BAD_LINE = "list that cannot be read", "label line that does not parse"
BAD_NAME, UNREADABLE = "name without coordinates", "unreadable image"
BAD_CAMERAS = "photograph's camera that cannot be read"
OUTSIDE, TWICE = "label outside its image", "line of the same image twice"
SHARED, EMPTY = "panorama of training and test", "empty list"
ORIENTATION, GARBLED = "orientation tag", "garbled JPEG"
FAR = "offset far from the name's position"  # the only kind that does not break training


class Finding(NamedTuple):
    """A fault. `path` is relative to the root; `line` counts from 1, 0 means the whole file."""

    kind: str
    path: str
    line: int
    detail: str


def check_folder(root, *, use_mask=True, decode=False, workers=1, vertical=WHOLE_DEG):
    """(all findings of a VIGOR folder, lists first; the number of images that its lists name).

    decode: read all pixels, not only the header and the end.
    vertical: degrees that panoramas show above and below the horizon. Raises UserError where there are no
    lists.
    """
    findings, found = [], set()
    for folder, suffix in lists.label_folders(root).values():
        for city in lists.label_cities(folder, suffix):
            found |= check_city(root, folder / city, suffix, use_mask, findings)
    check = partial(check_image, root, decode=decode, vertical=vertical)
    found = sorted(found, key=attrgetter("path"))
    pool = ProcessPoolExecutor(workers, initializer=_keep_complaints) if decode else None
    findings += filter(None, in_threads(check, found, workers, "checking", pool))
    return findings, len(found)


def check_city(root, folder, suffix, use_mask, findings):
    """The `ImageFile`s of all images in the lists of a city. Appends the lists' faults to the findings."""
    relative = folder.relative_to(root).as_posix()

    def attempt(read, argument, kind, file, line=0):
        try:
            return read(argument)
        except (UserError, ValueError) as error:
            findings.append(Finding(kind, f"{relative}/{file}", line, str(error)))
            return None

    satellites = attempt(lists.satellite_list, folder, BAD_LIST, lists.SATELLITE_LIST)
    if satellites is None:
        return set()
    read_gps = {kind: partial(lists.coordinates, kind=kind) for kind in lists.NAMES}
    findings += _check_names(f"{relative}/{lists.SATELLITE_LIST}", list(enumerate(satellites, 1)))
    satellite_gps = attempt(read_gps["satellite"], satellites, BAD_NAME, lists.SATELLITE_LIST)
    if satellite_gps is None:
        satellite_gps = np.full((len(satellites), 2), np.nan)
    parse = partial(lists.parse_label, row_of={name: row for row, name in enumerate(satellites)})
    panoramas, trains = [], set()
    for name in lists.LISTS:
        labels, file = [], f"{name}{suffix}.txt"
        lines = attempt(lists.read_lines, folder / file, BAD_LIST, file)
        named = [(number, line.split()[0]) for number, line in enumerate(lines or [], 1) if line]
        panoramas += [panorama for _, panorama in named]
        findings += _check_names(f"{relative}/{file}", named) if lines is not None else []
        if "_train" in name:
            trains = {panorama for _, panorama in named}
        if "_test" in name:
            both = ((number, panorama) for number, panorama in named if panorama in trains)
            findings += [Finding(SHARED, f"{relative}/{file}", *of_line) for of_line in both]
        for number, line in enumerate(lines or [], 1):
            label = attempt(parse, line, BAD_LINE, file, number) if line else None
            gps = attempt(read_gps["panorama"], label[:1], BAD_NAME, file, number) if label else None
            if gps is not None:
                labels.append((number, gps[0], *label[1:]))
        if labels:
            numbers, gps, rows, offsets = (np.array(column) for column in zip(*labels, strict=True))
            by_offset = lists.offset_positions(offsets)
            by_name = lists.positions_by_name(gps, satellite_gps[rows])
            distances_px = np.linalg.norm(by_offset - by_name, axis=-1).max(1)
            for i in np.flatnonzero(distances_px > FAR_PX):
                detail = f"{distances_px[i]:.1f} px"
                findings.append(Finding(FAR, f"{relative}/{file}", int(numbers[i]), detail))
            positive = by_offset[:, 0]
            for i in np.flatnonzero(~geometry.inside(positive)):
                detail = lists.outside_in_words(positive[i])
                findings.append(Finding(OUTSIDE, f"{relative}/{file}", int(numbers[i]), detail))
    if holds_photographs(root, folder.name):
        path = f"{folder.name}/{FILE}"
        try:
            absent = sorted(set(panoramas) - set(read_cameras(root / path)))
            findings += [Finding(BAD_CAMERAS, path, 0, f"no line for {name}") for name in absent]
        except UserError as error:
            findings.append(Finding(BAD_CAMERAS, path, 0, str(error)))
    return lists.city_images(root, folder.name, panoramas, satellites, use_mask)


def _check_names(path, named):
    """Yields the faults of the (line, name) pairs of a list: an empty list, a repeated name."""
    if not named:
        yield Finding(EMPTY, path, 0, "it names no image")
    first = {}
    for number, name in named:
        if first.setdefault(name, number) != number:
            yield Finding(TWICE, path, number, f"{name} as in line {first[name]}")


def check_image(root, image, decode, vertical=WHOLE_DEG):
    """The finding of an `ImageFile`, or None."""
    kind, path, _ = image
    try:
        with open(root / path, "rb") as file:
            opened = Image.open(file)
            # Photographs may have an orientation tag, other images not.
            tag, size = 1, opened.size
            if kind == "photo":
                size = decoding.upright_size(opened)
            else:
                tag = decoding.orientation(opened)
            (width, height), is_whole = size, decoding.ends_well(file)
    except FileNotFoundError:
        missing = "missing mask" if kind == "mask" else "missing image"
        return Finding(missing, path, 0, "no such file")
    except (UnidentifiedImageError, Image.DecompressionBombError):
        is_empty = os.path.getsize(root / path) == 0
        return Finding(UNREADABLE, path, 0, "the file is empty" if is_empty else "no image header")
    except OSError as error:
        return Finding(UNREADABLE, path, 0, error.strerror or str(error))
    if tag != 1:  # before its size, which the tag turns
        return Finding(ORIENTATION, path, 0, f"{tag}: some programs rotate this image; store it upright")
    if kind == "panorama":
        fault = images.panorama_size_fault(width, height, vertical)
    else:
        fault = None if kind == "photo" else images.satellite_size_fault(width, height)
    if fault:
        return Finding("image of another size", path, 0, fault)
    if decode or not is_whole:  # an image with an unusual end may be whole; only decoding shows that
        try:
            images.OriginalImages(root, width, (height, width), vertical).read(image)
        except UserError as error:
            return Finding(UNREADABLE if is_whole else "truncated image", path, 0, str(error))
    if decode and opened.format == "JPEG" and (says := _complaint(root / path)):
        return Finding(GARBLED, path, 0, says)
    return None


def _keep_complaints():
    """Direct stderr of this process, one of a pool, to a file, from which `_complaint` reads."""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)


def _complaint(path):
    """The JPEG decoder's warning about a file that it decodes; the decoder writes it to stderr only."""
    os.lseek(2, 0, os.SEEK_SET)
    os.ftruncate(2, 0)
    cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    return os.pread(2, 200, 0).decode("utf-8", "replace").partition("\n")[0]


def write_findings(path, findings):
    """Write all findings as a CSV. Raises UserError where it cannot be written."""
    table = pd.DataFrame(findings, columns=Finding._fields).to_csv(index=False)
    with writing(path, _OUTPUT):
        write_bytes(path, table.encode(), durable=True)


def summarise(findings):
    """A line for each kind of finding: how many, whether they break training, and the first."""
    first = {finding.kind: finding for finding in reversed(findings)}
    for kind, count in Counter(finding.kind for finding in findings).items():
        place = f"{first[kind].path}, line {first[kind].line}" if first[kind].line else first[kind].path
        effect = "worth a look" if kind == FAR else "breaks training"
        yield f"{count:8d}  {kind} ({effect}), the first: {place}"


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what to check")
    flags.add_dataset_root(group)
    text = "read every pixel, not only headers and ends of files"
    group.add_argument("--decode", action="store_true", help=text)
    text = "False: do not check masks"
    group.add_argument("--use_mask", type=settings.BOOLEAN, default=True, metavar="BOOL", help=text)
    about = {"type": ELEVATION, "nargs": 2, "metavar": ("TOP", "BOTTOM")}
    text = "degrees that panoramas show above and below the horizon (default: 90 90)"
    group.add_argument("--vertical", **about, help=text)
    text = "CSV of all findings (default: findings.csv in the data set's folder)"
    group.add_argument("--output", metavar="FILE", help=text)
    flags.add_workers(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    root = find_root(args.dataset_root)
    if other := other_set(root):
        raise UserError(f"{root}: holds {other[0]}, and dataset.check is for VIGOR's layout")
    lists.label_folders(root)  # refuses other folders before anything is written
    output = Path(args.output or root / "findings.csv")
    with writing(output, _OUTPUT):
        try_writing(output)
    options = {name: getattr(args, name) for name in ("use_mask", "decode", "workers")}
    options["vertical"] = args.vertical or WHOLE_DEG
    findings, count = check_folder(root, **options)
    write_findings(output, findings)
    print(f"{root}: {count} images named by its lists, {len(findings)} findings")
    print(*summarise(findings), sep="\n", end="\n" if findings else "")
    print(f"findings are in {output}")
    if any(finding.kind != FAR for finding in findings):
        raise SystemExit(1)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
