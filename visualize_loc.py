"""Draw where a network thinks a street image was taken: the two images, the heat map, truth and prediction.

    python visualize_loc.py --panorama street.jpg --satellite tile.png --metres_per_pixel 0.15 --heading 90
    python visualize_loc.py --panorama cropped.jpg --vertical 38.6 26.9 --satellite tile.png \\
        --metres_per_pixel 0.15
    python visualize_loc.py --photo phone.jpg --satellite tile.png --metres_per_pixel 0.15 --pitch -5
    python visualize_loc.py --model_path runs/VIGOR/<run>/best.pt --idx 30 --show_mask
    python visualize_loc.py --model_path runs/VIGOR/<run>/best.pt --worst 10
    python visualize_loc.py --model_path runs/VIGOR/<run> --panorama street.jpg --satellite tile.png \\
        --satellite_center 40.7405 -73.9878        # two images of your own

Two images of your own need no --model_path: the repository's networks answer, one for panoramas with a
--heading, one for other panoramas, one for photographs. They learned from drawn streets alone
(runs/pretrained/README.md). Pictures and text reports go to visualizations_loc/ beside the checkpoint.
"""

from pathlib import Path

from common.errors import UserError
from common.flags import Place, make_parser, run_script
from common.settings import BEARING, RESOLUTION
from common.view import View
from dataset.protocol import Protocol, Source
from engine.inference.asked import AS_TRAINED
from engine.localizer import Localizer
from engine.run import provenance
from engine.visualization import flags
from engine.visualization.flags import LENS
from engine.visualization.localization import listed_pair, own_images

OWN = ("satellite", "satellite_center", "heading", "metres_per_pixel", "mask", "intrinsics", "distortion")
ASKED = ("FoV", "ori_noise", "camera_height", "height_prior", "tta")  # what may differ from training


def build_parser():
    parser = make_parser(__doc__)
    tta = "as trained, but 8 where the repository's networks answer for your own images"
    which = flags.add_samples(parser, network_needed=False, default=AS_TRAINED | {"tta": tta})
    text = "an image of your own, twice as wide as high, or cropped above and below with --vertical"
    which.add_argument("--panorama", metavar="FILE", help=text)
    which.add_argument("--photo", metavar="FILE", help="a photograph of your own")
    about = "of any size; they need no dataset"
    group = parser.add_argument_group("your own two images, in place of --idx", about)
    text = "a satellite image, north up; square, but for the light network"
    group.add_argument("--satellite", metavar="FILE", help=text)
    text, place = "degrees; with it the prediction gets a latitude and a longitude", ("LAT", "LON")
    group.add_argument("--satellite_center", action=Place, nargs=2, metavar=place, help=text)
    text = "true bearing of the street image's centre (a photograph's within 20); north or unknown without it"
    group.add_argument("--heading", type=BEARING, metavar="DEG", help=text)
    text = "resolution of the satellite file; without it the image spans what VIGOR's do: 640 px at zoom 20"
    group.add_argument("--metres_per_pixel", type=RESOLUTION, metavar="M", help=text)
    text = "semantic mask of the satellite image; without it all is foreground"
    group.add_argument("--mask", metavar="FILE", help=text)
    flags.add_photograph(parser)
    group = parser.add_argument_group("drawing")
    text = "draw the semantic mask over the satellite image"
    group.add_argument("--show_mask", action="store_true", help=text)
    flags.add_output(parser, "visualizations_loc")
    return parser


def draw_listed(args):
    """Pictures and reports of pairs of the dataset."""
    if args.model_path is None:
        raise UserError("--idx and --worst need a network: give --model_path, a run's or 'pretrained'")
    flags.refuse_flags(args, OWN, "is for your own images: give --panorama or --photo, not --idx")
    samples = flags.read_samples(args)
    if args.show_mask and not samples.checkpoint.settings.use_mask:
        raise UserError("--show_mask: this network was trained with use_mask False; its data has no masks")
    output = flags.read_output(args)
    output.about = samples.provenance()
    for i in samples.indices:
        figure, report = listed_pair(samples, i, args.show_mask)
        output.save_report(report, f"{samples.list_name}_{i:06d}")
        output.save_figure(figure, f"{samples.list_name}_{i:06d}")


def draw_own(args):
    """Picture and report of two images of the user's own."""
    kind = "photo" if args.photo else "panorama"
    if args.satellite is None:
        raise UserError(f"--{kind} needs the --satellite image to find it in")
    if args.photo:
        flags.refuse_flags(args, ["FoV"], "cuts panoramas; the field of view of a --photo is --hfov")
    used = {*ASKED, *(LENS if args.photo else ["vertical"])}
    listed = {*Source.names(), *Protocol.names(), *View.names(), *LENS, "vertical"}
    flags.refuse_flags(args, listed - used, f"does not apply to --{kind}")
    localizer = Localizer.of_flags(args.model_path, args.device, **flags.given_flags(args, *ASKED))
    known = flags.given_flags(args, "mask", "heading", "metres_per_pixel") | flags.read_lens(args)
    known["centre"] = args.satellite_center
    street, satellite = Path(getattr(args, kind)), Path(args.satellite)
    output = flags.read_output(args)
    (located,) = localizer.answers([{kind: street, "satellite": satellite, **known}])
    if args.show_mask and "mask" not in located.sample:
        raise UserError("--show_mask: this network does not use masks")
    figure, report = own_images(located, street, satellite, args.show_mask)
    answerer = localizer.answerer(bool(args.photo), args.heading is not None)
    output.about = provenance(answerer.checkpoint, view=answerer.predictor.view)
    output.save_report(report, f"own_{street.stem}")
    output.save_figure(figure, f"own_{street.stem}")


def main(args):
    draw = draw_own if args.panorama or args.photo else draw_listed
    draw(args)


if __name__ == "__main__":
    run_script(main, build_parser())
