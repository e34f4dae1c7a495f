"""Measure a network on real places: street and satellite images that other repositories publish as samples.

    python -m benchmarks.real --download
    python -m benchmarks.real --model_path runs/VIGOR/<run> --each
    python -m benchmarks.real --unknown_heading
    python -m benchmarks.real --photo 90
    python -m benchmarks.real --suspects --table data/pairs.csv

Each place gives four windows of its satellite image, in which the camera lies off the centre. Without
--model_path the repository's networks are measured. Errors and summary go to results/ beside the checkpoint,
or in --root without one. docs/REAL.md says whose the images are and how well their labels are known.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from benchmarks import real_suspects
from benchmarks.real_pairs import ADDRESS, ADDRESS_CHECK, TABLE, download, other_files, read_pairs
from common import flags
from common.camera import WHOLE_DEG, pinhole
from common.errors import UserError
from common.geometry import heading_to_shift, wrap_degrees
from common.settings import POSITIVE
from common.view import HFOV, TTA
from dataset.images import read_photograph
from engine import run
from engine.evaluation.comparison import RESULTS
from engine.evaluation.report import recall_head, recall_row
from engine.evaluation.results import as_csv, as_json, prepare_folder, write_files
from engine.evaluation.summary import recalls
from engine.inference.decode import NEAR_M
from engine.inference.metrics import describe, distances, heading_errors, recall, reliability_gap
from engine.localizer import SURE, Localizer
from model.checkpoint import checkpoint_file

ROOT = "data/real"
SIDE_M, SIDE_SHARE = 64.0, 0.75  # of a window: VIGOR's least extent, and at most this share of the image
SHIFTS = (-0.28, 0.28)  # of a window's side, from its centre to the camera, along each axis
PHOTO_PX = (480, 640)  # (height, width) of photographs that are cut out of panoramas
LEAST_MASS = 1e-6  # a probability below it counts as this in the log score
HEADING_DEG = 5


def windows(satellite, metres_per_pixel, row, col):
    """Four windows of a satellite image (H, W, 3): [(window, (row, col) of the camera in it), ...].

    row, col: of the camera in the image.
    """
    height, width = satellite.shape[:2]
    side = int(min(SIDE_M / metres_per_pixel, SIDE_SHARE * min(height, width)))
    found = []
    for down in SHIFTS:
        for right in SHIFTS:
            top = min(max(round(row - (0.5 + down) * side), 0), height - side)
            left = min(max(round(col - (0.5 + right) * side), 0), width - side)
            window = np.ascontiguousarray(satellite[top : top + side, left : left + side])
            found.append((window, (row - top, col - left)))
    return found


def whole_panorama(panorama, vertical):
    """A panorama that shows degrees `vertical` above and below the horizon, black to zenith and nadir."""
    per_degree = panorama.shape[1] / 360
    rows = round(WHOLE_DEG[0] * per_degree) - round(vertical[0] * per_degree)
    whole = np.zeros((panorama.shape[1] // 2, *panorama.shape[1:]), np.uint8)
    part = panorama[: len(whole) - rows]
    whole[rows : rows + len(part)] = part
    return whole


def cut_photograph(panorama, bearing, hfov):
    """A level photograph, `PHOTO_PX`, that looks along a bearing from the centre of a whole panorama."""
    height, width = PHOTO_PX
    camera = pinhole(width, height, hfov=hfov)
    camera = camera.like(camera.values.double()[None])
    x, y = (torch.arange(side, dtype=torch.float64).add(0.5)[None] / side for side in (width, height))
    x, y = x[:, None].expand(1, height, width), y[:, :, None].expand(1, height, width)
    seen, depression = (angle[0].numpy() for angle in camera.rays(x, y))
    H, W = panorama.shape[:2]
    col = ((seen + bearing) / 360 + 0.5) % 1 * W - 0.5
    row = (depression / 180 + 0.5) * H - 0.5
    maps = col.astype(np.float32), row.astype(np.float32)
    return cv2.remap(panorama, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def ask(pair, panorama, turn, unknown_heading, hfov):
    """What `Localizer.locate` is given of a query image, and its true heading.

    turn: degrees from the panorama's centre to the axis of a photograph.
    hfov: degrees of a photograph that is cut out of the panorama; None: the panorama itself.
    """
    heading, vertical = pair.heading, (pair.top_deg, pair.bottom_deg)
    if hfov:
        heading = float(wrap_degrees(heading + turn))
        photo = cut_photograph(whole_panorama(panorama, vertical), turn, hfov)
        query = {"photo": photo, "hfov": hfov, "pitch": 0.0, "roll": 0.0}
    else:
        if not unknown_heading:  # networks for known headings learn from north-centred panoramas
            panorama = np.roll(panorama, heading_to_shift(heading, panorama.shape[1]), axis=1)
            heading = 0.0
        query = {"panorama": panorama, "vertical": vertical}
    return query | {"heading": None if unknown_heading else heading}, heading


def measure(localizer, pairs, root, unknown_heading=False, hfov=None, scale=1.0):
    """A table of predictions, a row for each window, errors in metres and degrees. Raises UserError.

    scale: the network is given so many times the stated metres per pixel; errors are in metres as stated.
    """
    rows = []
    for pair in tqdm(pairs, "measuring", unit="place", disable=None):
        panorama, satellite = (read_photograph(pair.file(root, name)) for name in ("panorama", "satellite"))
        metres = pair.metres_per_pixel
        for k, (window, true) in enumerate(windows(satellite, metres, pair.camera_row, pair.camera_col)):
            query, heading = ask(pair, panorama, 90.0 * k, unknown_heading, hfov)
            found = localizer.locate(satellite=window, metres_per_pixel=metres * scale, **query)
            centre = window.shape[0] / 2, window.shape[1] / 2
            row = {"place": pair.name, "kind": pair.kind, "uncertainty_m": pair.uncertainty_m, "window": k}
            row |= {"metres_per_pixel": metres}
            row |= {"error_m": metres * float(distances(found.row, found.col, *true))}
            row |= {"centre_guess_m": metres * float(distances(*centre, *true))}
            row |= {"east_m": metres * (found.col - true[1]), "north_m": metres * (true[0] - found.row)}
            near = found.probability_near(*true, metres=NEAR_M * scale)
            row |= {"probability": found.probability, "mass_at_truth": near}
            row |= {"heading_error_deg": float(heading_errors(found.heading, heading))}
            rows.append(row | {"camera_height_m": found.camera_height})
    return pd.DataFrame(rows)


def summarise(table):
    """{kind of place, or 'all': statistics, shares 0 to 1} of a table of predictions."""
    return {name: _summarise(part) for name, part in [*table.groupby("kind"), ("all", table)]}


def _summarise(part):
    error, sure = part["error_m"], part["probability"] >= SURE
    summary = {"windows": len(part), "error_m": describe(error), "recall": recalls(error)}
    summary["sure"] = float(sure.mean())
    summary["right_of_sure"] = recall(error[sure], NEAR_M) if sure.any() else None
    summary["log_score"] = float(np.log(part["mass_at_truth"].clip(LEAST_MASS, 1)).mean())
    summary["reliability_gap"] = reliability_gap(part["probability"], error <= NEAR_M)
    summary["heading_within_5_deg"] = recall(part["heading_error_deg"].abs(), HEADING_DEG)
    return summary | {"centre_guess_m": float(part["centre_guess_m"].mean())}


def report(summary):
    """The main numbers as a table that fits a terminal."""
    columns = (
        f"{'windows':>8}{'median m':>10}{'mean m':>8}{recall_head((1, 3, 5, 10))}{'sure':>7}{'right':>7}"
    )
    lines = [f"{'':12}{columns}{'log score':>11}{'gap':>6}{f'<= {HEADING_DEG}°':>7}{'centre m':>10}"]
    for name, part in summary.items():
        error, right = part["error_m"], part["right_of_sure"]
        line = f"{name:12}{part['windows']:>8}{error['median']:>10.2f}{error['mean']:>8.1f}"
        line += f"{recall_row(part['recall'].values())}{100 * part['sure']:>5.0f} %"
        line += f"{'-':>7}" if right is None else f"{100 * right:>5.0f} %"
        line += f"{part['log_score']:>11.2f}{part['reliability_gap']:>6.2f}"
        lines.append(f"{line}{100 * part['heading_within_5_deg']:>7.0f} %{part['centre_guess_m']:>10.1f}")
    says = f"heading: within {HEADING_DEG}°; centre: mean of guessing the window's centre"
    sure = f"sure: claims {100 * SURE:.0f} % or more within {NEAR_M:g} m; right: share of these that are"
    return "\n".join([*lines, f"{sure}; {says}"])


def report_each(table):
    """A line for each place: its windows' errors, and the probability that each answer claims within 5 m."""
    lines = []
    for name, part in table.groupby("place", sort=False):
        cells = (f"{m:6.1f} m ({100 * p:3.0f} %)" for m, p in part[["error_m", "probability"]].to_numpy())
        lines.append(f"{name:12}{''.join(cells)}")
    return "\n".join(lines)


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("images")
    group.add_argument("--root", metavar="DIR", default=ROOT, help="folder of the images")
    text = "another table of pairs, in the form of benchmarks/real.csv"
    group.add_argument("--table", metavar="CSV", default=TABLE, type=Path, help=text)
    text = "first download the images that are not in --root, one at a time"
    group.add_argument("--download", action="store_true", help=text)
    text = "of a file in a repository at a commit, for a mirror"
    group.add_argument("--address", type=ADDRESS_CHECK, metavar="URL", default=ADDRESS, help=text)
    group = parser.add_argument_group("what to measure")
    text = "a checkpoint, ours or published, or a run folder (default: the repository's networks)"
    group.add_argument("--model_path", metavar="FILE", help=text)
    text = "do not tell the network the headings"
    group.add_argument("--unknown_heading", action="store_true", help=text)
    text = "cut level photographs so many degrees wide out of the panoramas"
    group.add_argument("--photo", type=HFOV, metavar="DEG", help=text)
    text = "8: average over eight forms of a pair (default: 8 for the repository's networks, else 1)"
    group.add_argument("--tta", type=TTA, metavar="N", help=text)
    text = "instead of measuring, list image sets whose metres per pixel and places whose label the network "
    text += f"contradicts, the most suspect first; {len(real_suspects.SCALES)} times the cost"
    group.add_argument("--suspects", action="store_true", help=text)
    text = f"metres at which the cameras stand, for --suspects (default: {real_suspects.CAMERA_HEIGHT:g})"
    group.add_argument("--camera_height", type=POSITIVE, metavar="M", help=text)
    group = parser.add_argument_group("results")
    group.add_argument("--each", action="store_true", help="also print a line for each place")
    text = "default: results/ beside the checkpoint, or in --root without one"
    group.add_argument("--output_dir", metavar="DIR", help=text)
    flags.add_device(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    if args.suspects and args.each:
        raise UserError("--each prints errors of a measurement; --suspects lists every place anyway")
    if args.camera_height and not args.suspects:
        raise UserError(f"--camera_height {args.camera_height:g}: of --suspects, which is not given")
    root, pairs = Path(args.root), read_pairs(args.table)
    height = args.camera_height or real_suspects.CAMERA_HEIGHT if args.suspects else None
    localizer = Localizer(args.model_path, args.device, tta=args.tta, camera_height=height)
    if args.download:
        download(root, pairs, args.address)
    there = [pair for pair in pairs if pair.whole(root)]
    if not there:
        raise UserError(f"{root}: has no images of {args.table.name}; --download fetches them")
    if len(there) < len(pairs):
        absent = ", ".join(pair.name for pair in pairs if pair not in there)
        print(f"{root}: without {absent}, whose images are not there; --download fetches them")
    if others := other_files(root, there):
        says = f"{len(others)} images are not those of {args.table.name}, by their hashes"
        print(f"{root}: {says}: numbers may differ")
    folder = checkpoint_file(args.model_path).parent if args.model_path else root
    output = Path(args.output_dir or folder / RESULTS)
    prepare_folder(output)
    if args.suspects:
        return show_suspects(localizer, there, root, args.unknown_heading, args.photo, output)
    table = measure(localizer, there, root, args.unknown_heading, args.photo)
    summary, answerer = summarise(table), localizer.answerer(bool(args.photo), not args.unknown_heading)
    checkpoint, view = answerer.checkpoint, answerer.predictor.view
    context = run.provenance(checkpoint, view=view)
    context |= {"unknown_heading": args.unknown_heading, "photo": args.photo}
    context |= {"places": [pair.name for pair in there], "other_files": len(others)}
    context["device"] = str(localizer.device)
    name = "real" + (f"_photo_{args.photo:g}" if args.photo else "")
    name += "_unknown_heading" if args.unknown_heading else ""
    files = {f"{name}.csv": as_csv(table), f"{name}.json": as_json(context, summary)}
    write_files(output, files, last=f"{name}.json")
    print(report(summary))
    if args.each:
        print(report_each(table))
    print(f"results are in {output}")


def show_suspects(localizer, pairs, root, unknown_heading, hfov, output):
    """Print and write the tables of `real_suspects`."""
    scales = real_suspects.SCALES
    tables = [measure(localizer, pairs, root, unknown_heading, hfov, scale) for scale in scales]
    sets, places = real_suspects.find_suspects(tables)
    write_files(output, {"suspect_sets.csv": as_csv(sets), "suspect_places.csv": as_csv(places)})
    print(real_suspects.report(sets, places))
    print(f"results are in {output}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
