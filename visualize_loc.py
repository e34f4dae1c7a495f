"""Draw where the network thinks a panorama was taken: panorama, satellite image, heat map, truth and prediction.

    python visualize_loc.py --model_path runs/VIGOR/<run>/best.pt --idx 30 --show_mask
    python visualize_loc.py --model_path runs/VIGOR/<run>/best.pt --worst 10
    python visualize_loc.py --model_path runs/VIGOR/<run>/best.pt --panorama street.jpg --satellite tile.png \\
        --satellite_center 40.7405 -73.9878        # two images of your own

Pictures, each with a text report, go to visualizations_loc/ beside the checkpoint.
"""

from functools import partial
from pathlib import Path

from dataset.geometry import THESIS_METRES_PER_PIXEL, position_to_gps
from dataset.index import AREAS, SPLITS
from engine import options, run, samples
from engine.metrics import heading_errors


def build_parser():
    parser = options.make_parser(__doc__.split("\n")[0], __doc__.split("\n\n")[1])
    which = samples.add_samples(parser, AREAS, SPLITS)
    which.add_argument("--panorama", metavar="FILE", help="an image of your own, twice as wide as high; see below")
    group = parser.add_argument_group("your own two images, in place of --idx", "of any size; they need no dataset")
    group.add_argument("--satellite", metavar="FILE", help="a square satellite image, north up")
    group.add_argument(
        "--satellite_center",
        type=float,
        nargs=2,
        metavar=("LAT", "LON"),
        help="degrees; with it the prediction gets a latitude and a longitude",
    )
    group.add_argument(
        "--heading", type=float, metavar="DEG", help="true bearing of the panorama's centre; without it north, or not known"
    )
    group.add_argument(
        "--metres_per_pixel",
        type=options.positive,
        metavar="M",
        help="of the satellite file; without it the image spans what VIGOR's do: 640 px at zoom 20",
    )
    group.add_argument("--mask", metavar="FILE", help="semantic mask of the satellite image; without it all is foreground")
    group = parser.add_argument_group("drawing")
    group.add_argument("--show_mask", action="store_true", help="draw the semantic mask over the satellite image")
    samples.add_output(parser, "visualizations_loc")
    return parser


def user_errors():
    from dataset.images import DataError
    from model import CheckpointError

    return DataError, CheckpointError, run.RunError


def localize(network, sample, to_gps, *, show_mask=False, title="", notes=()):
    """The figure of a sample, its `Estimate` and, where it can be known, the predicted (latitude, longitude).

    network: (model, settings, device, `HeatMap`) · to_gps: a function of a position (row, col), or None.
    """
    from torch.utils.data import default_collate

    from engine import pictures
    from engine.batch import to_device

    model, settings, device, heat_map = network
    batch = default_collate([sample])
    _, (one,) = samples.estimate(model, to_device(batch, device), settings, heat_map)
    gps = to_gps(*one.position) if to_gps else None
    if one.truth:
        title += f": error {samples.describe_error(one)}"
    if gps:
        title += f"\npredicted latitude {gps[0]:.6f}, longitude {gps[1]:.6f}"
    figure = pictures.localization_figure(
        batch["panorama"][0].permute(1, 2, 0).numpy(),
        batch["satellite"][0].permute(1, 2, 0).numpy(),
        one.probability,
        prediction=one.position,
        truth=one.truth,
        metres_per_pixel=one.metres_per_pixel,
        heading=one.true_heading,
        predicted_heading=one.heading,
        FoV=settings["FoV"],
        mask=batch["mask"][0, 0].numpy() if show_mask else None,
        heat_map_name=heat_map.name,
        title=title,
        notes="\n".join(notes),
    )
    return figure, one, gps


def report(one, gps, size, heat_map):
    """What a picture shows, as text, at the 512 px of the evaluation."""
    scale, lines = samples.REFERENCE_PX / size, []
    if one.truth:
        lines.append(f"truth (row, col), px at 512: {one.truth[0] * scale:.3f} {one.truth[1] * scale:.3f}")
    lines.append(f"prediction (row, col), px at 512: {one.position[0] * scale:.3f} {one.position[1] * scale:.3f}")
    if one.metres_per_pixel:
        south, east = ((value - size / 2) * one.metres_per_pixel for value in one.position)
        lines.append(f"prediction from the image's centre: {-south:.2f} m north, {east:.2f} m east")
    if gps:
        lines.append(f"prediction (latitude, longitude): {gps[0]:.7f} {gps[1]:.7f}")
    if one.truth:
        thesis = f"{one.error_px * THESIS_METRES_PER_PIXEL:.3f} m by the thesis's rule"
        lines.append(f"error: {one.error_px:.3f} px at 512, {one.error_m:.3f} m, {thesis}")
    if one.heading is not None:
        text = f"heading: predicted {one.heading:.2f}°"
        if one.true_heading is not None:
            text += f", true {one.true_heading:.2f}°, error {heading_errors(one.heading, one.true_heading):.2f}°"
        lines.append(text)
    lines.append(f"{heat_map.name}: {100 * one.probability.max():.3g} % at the most probable pixel")
    return "\n".join(lines) + "\n"


def draw_listed(args):
    """Pictures and reports of samples of the dataset."""
    from dataset.vigor import open_split
    from model import load_model

    opened = samples.open_samples(args, load_model, open_split)
    settings, dataset, size = opened.settings, opened.dataset, opened.dataset.satellite_size
    if args.show_mask and not settings["use_mask"]:
        raise run.RunError("--show_mask: this network was trained with use_mask False and its data is read without masks")
    network = opened.model, settings, opened.device, opened.heat_map
    folder = samples.output_folder(args)
    for i in opened.indices:
        row, kind = dataset.pairs[i]
        latitude, longitude = dataset.index.satellite_gps[dataset.index.satellite[row, kind]]
        to_gps = partial(position_to_gps, satellite_latitude=latitude, satellite_longitude=longitude, size_px=size)
        title = f"{opened.list_name} {i}"
        figure, one, gps = localize(network, dataset[i], to_gps, show_mask=args.show_mask, title=title)
        head = f"index: {i}\npanorama: {samples.panorama_name(dataset, i)}\n"
        name = f"{opened.list_name}_{i:06d}"
        samples.save_report(head + report(one, gps, size, opened.heat_map), folder, name)
        samples.save_figure(figure, folder, name, args)


def draw_own(args):
    """Picture and report of two images of the user's own."""
    from dataset.own import own_sample, to_gps
    from model import load_model

    model, settings, device = samples.open_network(args, load_model)
    sample, notes = own_sample(
        args.panorama,
        args.satellite,
        settings,
        mask=args.mask,
        centre=args.satellite_center,
        heading=args.heading,
        metres_per_pixel=args.metres_per_pixel,
    )
    conditions = {"ori_noise_deg": settings["ori_noise"], "FoV_deg": settings["FoV"]}
    heat_map = samples.find_heat_map(args.model_path, settings, conditions)
    size, place = settings["satellite_size"], None
    if args.satellite_center:
        metres = float(sample["metres_per_pixel"])
        place = partial(to_gps, centre=args.satellite_center, metres_per_pixel=metres, size_px=size)
    figure, one, gps = localize(
        (model, settings, device, heat_map),
        sample,
        place,
        show_mask=args.show_mask and "mask" in sample,
        title=f"{Path(args.panorama).name} in {Path(args.satellite).name}",
        notes=notes,
    )
    head = [f"panorama: {args.panorama}", f"satellite image: {args.satellite}", *(f"note: {note}" for note in notes), ""]
    folder, name = samples.output_folder(args), f"own_{Path(args.panorama).stem}"
    samples.save_report("\n".join(head) + report(one, gps, size, heat_map), folder, name)
    samples.save_figure(figure, folder, name, args)


def main(args):
    own = {"satellite", "satellite_center", "heading", "metres_per_pixel", "mask"} & args.given
    if args.panorama is None and own:
        raise run.RunError(f"--{min(own)} belongs to two images of your own; give --panorama and --satellite instead of --idx")
    if args.panorama is not None and args.satellite is None:
        raise run.RunError("--panorama needs the --satellite image to find it in")
    if args.panorama is None:
        draw_listed(args)
    else:
        draw_own(args)


if __name__ == "__main__":
    options.run_script(main, build_parser(), user_errors)
