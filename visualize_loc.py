"""Draw where the network thinks a street image was taken: that, the satellite image, the heat map, truth and prediction.

    python visualize_loc.py --panorama street.jpg --satellite tile.png --metres_per_pixel 0.15 --heading 90
    python visualize_loc.py --photo phone.jpg --satellite tile.png --metres_per_pixel 0.15 --pitch -5
    python visualize_loc.py --model_path runs/VIGOR/<run>/best.pt --idx 30 --show_mask
    python visualize_loc.py --model_path runs/VIGOR/<run>/best.pt --worst 10
    python visualize_loc.py --model_path runs/VIGOR/<run>/best.pt --panorama street.jpg --satellite tile.png \\
        --satellite_center 40.7405 -73.9878        # two images of your own

Two images of your own need no --model_path: the networks of the repository look at them, one at panoramas whose --heading is
given, one at other panoramas, one at photographs; they learned from drawn streets alone (runs/pretrained/README.md).

Pictures, each with a text report, go to visualizations_loc/ beside the checkpoint.
"""

from pathlib import Path

from common import flags
from common.errors import UserError
from engine.evaluation.conditions import Asked
from engine.localizer import Localizer
from engine.visualization.flags import add_output, add_photograph, add_samples, read_lens, read_output, read_samples
from engine.visualization.localization import listed_pair, own_images

OWN = "satellite", "satellite_center", "heading", "metres_per_pixel", "mask", "intrinsics", "distortion"  # of one's own images


def build_parser():
    parser = flags.make_parser(__doc__)
    which = add_samples(parser, network_needed=False)
    which.add_argument("--panorama", metavar="FILE", help="an image of your own, twice as wide as high; see below")
    which.add_argument("--photo", metavar="FILE", help="a photograph of your own; see below")
    group = parser.add_argument_group("your own two images, in place of --idx", "of any size; they need no dataset")
    group.add_argument("--satellite", metavar="FILE", help="a satellite image, north up; square, but for the light network")
    group.add_argument(
        "--satellite_center",
        action=flags.Place,
        nargs=2,
        metavar=("LAT", "LON"),
        help="degrees; with it the prediction gets a latitude and a longitude",
    )
    group.add_argument(
        "--heading",
        type=flags.BEARING,
        metavar="DEG",
        help="true bearing of the street image's centre; without it north, or not known; of a photograph within 20 degrees",
    )
    group.add_argument(
        "--metres_per_pixel",
        type=flags.POSITIVE,
        metavar="M",
        help="of the satellite file; without it the image spans what VIGOR's do: 640 px at zoom 20",
    )
    group.add_argument("--mask", metavar="FILE", help="semantic mask of the satellite image; without it all is foreground")
    add_photograph(parser)
    group = parser.add_argument_group("drawing")
    group.add_argument("--show_mask", action="store_true", help="draw the semantic mask over the satellite image")
    add_output(parser, "visualizations_loc")
    return parser


def draw_listed(args):
    """Pictures and reports of pairs of the dataset."""
    samples = read_samples(args)
    if args.show_mask and not samples.loaded.settings.use_mask:
        raise UserError("--show_mask: this network was trained with use_mask False and its data is read without masks")
    output = read_output(args)
    for i in samples.indices:
        figure, report = listed_pair(samples, i, args.show_mask)
        output.save_report(report, f"{samples.list_name}_{i:06d}")
        output.save_figure(figure, f"{samples.list_name}_{i:06d}")


def draw_own(args):
    """Picture and report of two images of the user's own."""
    asked = Asked.pick(vars(args))
    localizer = Localizer(args.model_path, args.device, FoV=asked.FoV, tta=asked.tta, camera_height=asked.camera_height)
    known = {"mask": args.mask, "centre": args.satellite_center, "heading": args.heading, **read_lens(args)}
    known |= {"photo": args.photo} if args.photo else {"panorama": args.panorama}
    found = localizer.locate(satellite=args.satellite, metres_per_pixel=args.metres_per_pixel, **known)
    images = Path(args.photo or args.panorama), Path(args.satellite)
    figure, report = own_images(found, *images, args.show_mask)
    output = read_output(args)
    output.save_report(report, f"own_{images[0].stem}")
    output.save_figure(figure, f"own_{images[0].stem}")


def main(args):
    own, listed = [name for name in OWN if getattr(args, name) is not None], args.panorama is None and args.photo is None
    if listed and own:
        raise UserError(f"--{min(own)} belongs to two images of your own; give --panorama or --photo and --satellite, not --idx")
    if not listed and args.satellite is None:
        raise UserError(f"--{'photo' if args.photo else 'panorama'} needs the --satellite image to find it in")
    if listed and args.model_path is None:
        raise UserError("--idx and --worst need a network: give --model_path, a run's or 'pretrained'")
    if listed:
        draw_listed(args)
    else:
        draw_own(args)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
