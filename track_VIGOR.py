"""Follow a drive through a city: each frame's place and heading from all of its images and motions.

    python track_VIGOR.py --city Seattle --frames drive.csv --near 47.618 -122.318 --radius 300
    python track_VIGOR.py --model_path runs/VIGOR/<run> --city Seattle --frames drive.csv --use odometry
    python track_VIGOR.py --city Seattle --frames photos.csv --hfov 67
    python track_VIGOR.py --city Seattle --evaluate --dataset_root data/drives --use odometry compass

The table of frames has a line for each image: its file and what there is of drive, time, latitude, longitude,
accuracy, forward, left, turn (since the line before; metres and degrees clockwise), heading, and of a
photograph's camera hfov, pitch, roll. A table of places, GeoJSON, GPX, a picture and an animation go to
tracks/ beside the checkpoint. A track that was stopped goes on. docs/SEQUENCES.md has more.
"""

import shutil
from pathlib import Path

from common import flags
from common.device import pick_device
from common.errors import UserError
from common.files import replacing
from common.view import View
from dataset.photograph import kind_of_street
from dataset.protocol import Protocol, Source
from engine.evaluation.results import as_csv
from engine.inference.asked import AS_TRAINED, asked_protocol, asked_view
from engine.run import provenance
from engine.search.setup import open_search
from engine.tracking.drive import DriveTracker
from engine.tracking.evaluate import Trial, evaluate_tracks, truth_of
from engine.tracking.motion import MotionNoise
from engine.tracking.report import as_geojson, as_gpx, as_table, in_words
from engine.tracking.table import SENSORS, TABLE, read_frames
from engine.visualization.flags import (
    LENS,
    add_circle,
    add_index_root,
    add_output,
    add_photograph,
    read_lens,
    read_output,
    refuse_flags,
)
from engine.visualization.tracks import track_animation, track_map, track_picture
from model.checkpoint import load_model, pretrained_for

OF_VIEW = ("FoV", "ori_noise", "camera_height", "height_prior", "tta")  # of a `View`, which apply to drives
OF_LIST = ("seed", "orientation_file")
FOLDER, RADIUS_M = "tracks", 300.0


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what to follow, and with what")
    model = "a light or ground_plane network's checkpoint or run folder (default: the repository's network "
    model += "for the kind of images and what is known of their headings)"
    group.add_argument("--model_path", metavar="FILE", help=model)
    table = "a CSV file with a line for each image; of --evaluate, with the truth (default: "
    table += "<city>/drives.csv of the data)"
    group.add_argument("--frames", metavar="CSV", help=table)
    group.add_argument("--drive", metavar="NAME", help="of a table with several (default: each)")
    kinds = "columns to use, where the table has them"
    group.add_argument("--use", nargs="+", choices=tuple(SENSORS), default=tuple(SENSORS), help=kinds)
    photos = "the images are photographs; of whole panoramas, what lies ahead"
    group.add_argument("--photos", action="store_true", help=photos)
    measure = "follow all drives of the tables and measure"
    group.add_argument("--evaluate", action="store_true", help=measure)
    group = parser.add_argument_group("where")
    cities = "the drive's city; of --evaluate, one or more (default: all that have drives.csv)"
    group.add_argument("--city", nargs="+", metavar="CITY", help=cities)
    near = "where the drive begins, degrees (default: by GPS, or anywhere in the city)"
    add_circle(group, near, f"metres around it (default: {RADIUS_M:g})")
    flags.add_settings(parser, MotionNoise, Trial)
    kinds = Source, Protocol, View
    flags.add_settings(parser, *kinds, default=AS_TRAINED, leave_out=("pos_only",))
    group = parser.add_argument_group("how")
    add_index_root(group)
    add_photograph(parser)
    add_output(parser, FOLDER)
    return parser


def check_flags(args):
    """Raises UserError for a flag that does not apply to what is followed."""
    refuse_flags(args, OF_LIST, "is for panoramas of a list; it does not apply to a drive")
    if args.evaluate:
        refuse_flags(args, ["near", "radius", "drive"], "does not apply to --evaluate; see --start_radius")
        return
    refuse_flags(args, Trial.names(), "needs --evaluate")
    if args.frames is None:
        raise UserError("--frames: give the table of the drive's images, or --evaluate")
    if args.city is None or len(args.city) != 1:
        raise UserError("--city: name the one city of the drive")
    if args.near is None:
        refuse_flags(args, ["radius"], "needs --near")


def main(args):
    check_flags(args)
    source = Source.pick(vars(args)).found()
    tables = read_tables(args, source)
    frames = [frame for drives in tables.values() for drive in drives.values() for frame in drive]
    trial = Trial.pick(vars(args))
    photos = args.photos or (args.model_path is None and kind_of_street(frames[0].file) == "photo")
    compass = trial.compass_error is not None or all("heading" in frame.numbers for frame in frames)
    word, changes = (args.model_path, {}) if args.model_path else pretrained_for(photos, compass)
    device = pick_device(args.device)
    checkpoint = load_model(word, device)
    asked = {name: value for name, value in vars(args).items() if name in OF_VIEW}
    view = asked_view(checkpoint, changes | asked)
    protocol = asked_protocol(checkpoint, vars(args), source)
    used = (*OF_VIEW, *LENS) if view.photographs else (*OF_VIEW, "vertical")
    refuse_flags(args, {*View.names(), *LENS} - {*used}, "does not apply to these images")
    noise = {"compass": max(0.1, trial.compass_error / 3**0.5)} if trial.compass_error is not None else {}
    noise = MotionNoise.pick(noise, vars(args))
    opening = source, list(tables), device, args.index_root
    folder = read_output(args)
    searcher, dataset = open_search(checkpoint, view, protocol, *opening)
    trackers = {city.name: DriveTracker(checkpoint, view, searcher, city, noise) for city in searcher.cities}
    folder.about = provenance(checkpoint, dataset.index, view=view)
    if args.evaluate:
        context = folder.about | {"use": list(args.use), "noise": noise.plain()}
        print(evaluate_tracks(tables, trackers, trial, folder.folder, context), end="")
        print(f"results are in {folder.folder}")
        return
    ((city, drives),) = tables.items()
    near = None if args.near is None else (*args.near, args.radius or RADIUS_M)
    for name, drive in drives.items():
        follow(args, trackers[city], name, drive, near, folder)


def read_tables(args, source):
    """{city: {drive: its frames}} of the tables that the flags name. Raises UserError."""
    if args.frames:
        drives = read_frames(args.frames, args.use)
        if args.drive is not None:
            if args.drive not in drives:
                known = ", ".join(filter(None, drives)) or "none by name"
                raise UserError(f"--drive {args.drive}: {args.frames} has {known}")
            drives = {args.drive: drives[args.drive]}
        if args.city is None or len(args.city) != 1:
            raise UserError("--city: name the one city of the drives")
        return {args.city[0]: drives}
    root = Path(source.dataset_root)
    cities = args.city or sorted(path.parent.name for path in root.glob(f"*/{TABLE}"))
    if not cities:
        way_out = "draw some: python -m dataset.mini_vigor --drives 8, or give a table with --frames"
        raise UserError(f"{root}: no city has {TABLE}; {way_out}")
    return {city: read_frames(root / city / TABLE, args.use) for city in cities}


def follow(args, tracker, name, frames, near, output):
    """Follow one drive: a table, GeoJSON, GPX, a picture, an animation."""
    title = "_".join(filter(None, [Path(args.frames).stem, name]))
    lens = read_lens(args)
    beliefs = output.folder / f".{title}"
    track = tracker.follow(frames, beliefs, near, lens, description=f"tracking {title}")
    table = as_table(track, name)
    output.save_text(as_csv(table, "%.9g"), f"{title}.csv")
    output.save_geojson(as_geojson(table, track.near), title)
    output.save_text(as_gpx(table, title), f"{title}.gpx")
    output.save_report(f"{title}\n{in_words(track)}", title)
    truth = truth_of(frames)
    truth = None if truth is None else truth[0]
    city_map = track_map(track, truth)
    output.save_figure(track_picture(track, city_map, title, truth), title)
    with replacing(output.folder / f"{title}.gif") as beside:
        beside.write_bytes(track_animation(track, city_map))
    print(f"animation: {output.folder / title}.gif")
    shutil.rmtree(beliefs)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
