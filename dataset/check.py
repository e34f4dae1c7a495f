"""Is a VIGOR folder whole and readable? Looks at every list and at every image that the lists name.

    python -m dataset.check --dataset_root /data/VIGOR                          # headers and ends of files
    python -m dataset.check --dataset_root /data/VIGOR --decode --workers 8     # every pixel, as training reads them

All findings go to findings.csv in that folder, or where --output says; the exit status is 1 when one would break training.
"""

import csv
import os
from collections import Counter
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from common import flags, geometry
from common.errors import UserError
from common.files import replacing
from common.parallel import in_threads
from dataset import images, index

BREAKS_TRAINING = {
    "list that cannot be read": True,
    "label line that does not parse": True,
    "name without coordinates": True,
    "missing image": True,
    "missing mask": True,
    "unreadable image": True,
    "truncated image": True,
    "image of another size": True,
    "offset far from the name's position": False,
}
FAR_PX = 10.0  # at 640 px; the offsets of the real lists lie within 5.6 px of the positions by name
READERS = {"panorama": images.read_panorama, "satellite": images.read_satellite, "point_prompt_mask": images.read_mask}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a kind of BREAKS_TRAINING, a path relative to the root, a line counted from 1 or 0, what it is."""

    kind: str
    path: str
    line: int
    detail: str


def check_folder(root, *, use_mask=True, decode=False, workers=1):
    """All findings of a VIGOR folder, lists first, and the number of images that its lists name.

    decode: read every image as training does, not only its header and its end. Raises UserError where there are no lists.
    """
    findings, paths = [], set()
    for folder, suffix in index.label_folders(root):
        for city in index.CITIES:
            found, named = check_city(root, folder / city, suffix, use_mask)
            findings += found
            paths |= named

    def check(path):
        return check_image(root, path, decode)

    findings += [finding for finding in in_threads(check, sorted(paths), workers, "checking") if finding]
    return findings, len(paths)


def check_city(root, folder, suffix, use_mask):
    """Findings in the lists of a city, and the paths of all images that they name."""
    findings, paths, city = [], set(), folder.name
    relative = folder.relative_to(root).as_posix()
    list_path = f"{relative}/satellite_list.txt"
    try:
        satellites = index.satellite_list(folder)
    except UserError as error:
        return [Finding("list that cannot be read", list_path, 0, str(error))], paths
    try:
        coordinates = index.satellite_coordinates(satellites)
    except UserError as error:
        findings.append(Finding("name without coordinates", list_path, 0, str(error)))
        coordinates = np.full((len(satellites), 2), np.nan)
    for name in satellites:
        paths |= {index.satellite_path(city, name)} | ({index.mask_path(city, name)} if use_mask else set())
    row_of = {name: row for row, name in enumerate(satellites)}
    for file in (f"{name}{suffix}.txt" for name in index.LISTS):
        found, panoramas = check_list(folder / file, f"{relative}/{file}", row_of, coordinates)
        findings += found
        paths |= {index.panorama_path(city, name) for name in panoramas}
    return findings, paths


def check_list(path, relative, row_of, satellite_gps):
    """Findings in one label list, and the panoramas that it names."""
    try:
        lines = index.read_lines(path)
    except UserError as error:
        return [Finding("list that cannot be read", relative, 0, str(error))], []
    findings, panoramas, placed = [], [], []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        panoramas.append(line.split()[0])
        try:
            name, rows, offsets = index.parse_label(line, row_of)
        except ValueError as error:
            findings.append(Finding("label line that does not parse", relative, number, str(error)))
            continue
        try:
            gps = index.panorama_coordinates([name])[0]
        except UserError as error:
            findings.append(Finding("name without coordinates", relative, number, str(error)))
            continue
        placed.append((number, gps, rows, offsets))
    if placed:
        numbers, gps, rows, offsets = (np.array(column) for column in zip(*placed, strict=True))
        by_offset = np.stack(geometry.offsets_to_position(offsets[:, ::2], offsets[:, 1::2]), -1)
        away = np.linalg.norm(by_offset - index.positions_by_name(gps, satellite_gps[rows]), axis=-1).max(1)
        kind = "offset far from the name's position"
        findings += [Finding(kind, relative, int(numbers[i]), f"{away[i]:.1f} px") for i in np.flatnonzero(away > FAR_PX)]
    return findings, panoramas


def check_image(root, path, decode):
    """The finding of one image, or None."""
    kind = Path(path).parent.name
    try:
        with open(root / path, "rb") as file:
            width, height = Image.open(file).size
            file.seek(0)
            first = file.read(4)
            file.seek(-12, os.SEEK_END)
            whole = images.ends_well(first, file.read())
    except FileNotFoundError:
        return Finding("missing mask" if kind == "point_prompt_mask" else "missing image", path, 0, "no such file")
    except (UnidentifiedImageError, Image.DecompressionBombError):
        empty = os.path.getsize(root / path) == 0
        return Finding("unreadable image", path, 0, "the file is empty" if empty else "its header is not that of an image")
    except OSError as error:
        return Finding("unreadable image", path, 0, error.strerror or str(error))
    size_fault = images.panorama_size_fault if kind == "panorama" else images.satellite_size_fault
    if fault := size_fault(width, height):
        return Finding("image of another size", path, 0, fault)
    if decode or not whole:  # an odd end may follow a whole image: only decoding tells
        try:
            READERS[kind](root / path, *((height, width) if kind == "panorama" else (width,)))
        except UserError as error:
            return Finding("unreadable image" if whole else "truncated image", path, 0, str(error))
    return None


def open_output(root, output):
    """The CSV for the findings of a folder, which was tried out: in that folder where none is named. Raises UserError."""
    path = Path(output or root / "findings.csv")
    try:
        write_findings(path, [])
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name a file that can with --output") from None
    return path


def write_findings(path, findings):
    """All findings as a CSV."""
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Finding)])
        writer.writerows(astuple(finding) for finding in findings)


def summarise(findings):
    """One line for each kind of finding: how many, whether it breaks training, the first."""
    counts = Counter(finding.kind for finding in findings)
    first = {finding.kind: finding for finding in reversed(findings)}
    lines = []
    for kind in (kind for kind in BREAKS_TRAINING if counts[kind]):
        place = f"{first[kind].path}, line {first[kind].line}" if first[kind].line else first[kind].path
        effect = "breaks training" if BREAKS_TRAINING[kind] else "look at it"
        lines.append(f"{counts[kind]:8d}  {kind} ({effect}), the first: {place}")
    return "\n".join(lines)


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what to check")
    flags.add_dataset_root(group)
    group.add_argument("--decode", action="store_true", help="read every pixel; without it headers and ends of files")
    group.add_argument("--use_mask", type=flags.BOOLEAN, default=True, metavar="BOOL", help="False: masks do not matter")
    group.add_argument("--output", metavar="FILE", help="CSV of all findings; default: findings.csv in the folder itself")
    flags.add_workers(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    root = index.find_root(args.dataset_root)
    index.label_folders(root)  # or nothing is written there
    output = open_output(root, args.output)
    findings, count = check_folder(root, use_mask=args.use_mask, decode=args.decode, workers=args.workers)
    write_findings(output, findings)
    print(f"{root}: {count} images named by its lists, {len(findings)} findings, written to {output}")
    if findings:
        print(summarise(findings))
    if any(BREAKS_TRAINING[finding.kind] for finding in findings):
        raise SystemExit(1)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
