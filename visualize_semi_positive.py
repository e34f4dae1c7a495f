"""Draw one panorama against its positive and its three semi-positives, and what the four heat maps say together.

    python visualize_semi_positive.py --model_path runs/VIGOR/<run>/best.pt --idx 30

Pictures, each with a text report, go to visualizations_semi_positive/ beside the checkpoint. The fifth map puts the four images
into one world and multiplies what they say: what a user with four overlapping images would do.
"""

from dataset.geometry import SATELLITE_PX, latitude_longitude, mercator_px
from dataset.index import AREAS, KINDS, SPLITS
from engine import options, run, samples
from engine.metrics import distances


def build_parser():
    parser = options.make_parser(__doc__.split("\n")[0], __doc__.split("\n\n")[1])
    samples.add_samples(parser, AREAS, SPLITS)
    samples.add_output(parser, "visualizations_semi_positive")
    return parser


def user_errors():
    from dataset.images import DataError
    from model import CheckpointError

    return DataError, CheckpointError, run.RunError


def predict_tiles(opened, i):
    """(batch of the panorama of pair i with each of its four satellite images, their `Estimate`s)."""
    import torch
    from torch.utils.data import default_collate

    from engine.batch import to_device

    dataset, row = opened.dataset, opened.dataset.pairs[i][0]
    heading = float(dataset[i]["heading"])
    tiles = [dataset.pair(row, kind, heading) | {"index": torch.tensor(i)} for kind in range(len(KINDS))]
    batch = default_collate(tiles)
    _, estimates = samples.estimate(opened.model, to_device(batch, opened.device), opened.settings, opened.heat_map)
    return batch, estimates


def fuse_tiles(opened, i, estimates):
    """The `World` of the four heat maps of pair i, the panorama's true place in it, and the error: (pixels at 512, metres)."""
    import numpy as np

    from engine.world import fuse

    index, row, size = opened.dataset.index, opened.dataset.pairs[i][0], opened.dataset.satellite_size
    centres = np.stack(mercator_px(*index.satellite_gps[index.satellite[row]].T), -1)  # (4, 2), pixels of zoom 20
    corners = (centres - SATELLITE_PX / 2) * (size / SATELLITE_PX)
    world = fuse(np.stack([one.probability for one in estimates]), corners)
    truth = world.corners[0] + index.position[row, 0] * (size / SATELLITE_PX)  # by the positive's label
    error = float(distances(*world.position, *truth))
    return world, tuple(truth), (error * samples.REFERENCE_PX / size, error * estimates[0].metres_per_pixel)


def tile_title(kind, one):
    """The kind of a satellite image and its error, or that the panorama lies outside."""
    return f"{kind}\n" + (samples.describe_error(one) if one.truth else "the panorama lies outside this image")


def draw(opened, i):
    """Figure and text report of one panorama."""
    from engine import pictures, world

    batch, estimates = predict_tiles(opened, i)
    fused, truth, (error_px, error_m) = fuse_tiles(opened, i, estimates)
    error = f"{error_px:.2f} px at {samples.REFERENCE_PX}, {error_m:.2f} m"
    images = batch["satellite"].permute(0, 2, 3, 1).numpy()
    tiles = [
        {
            "satellite": image,
            "probability": one.probability,
            "prediction": one.position,
            "truth": one.truth,
            "metres_per_pixel": one.metres_per_pixel,
            "title": tile_title(kind, one),
        }
        for kind, image, one in zip(KINDS, images, estimates, strict=True)
    ]
    together = {
        "satellite": world.mosaic(images, fused.corners, fused.probability.shape),
        "probability": fused.probability,
        "prediction": fused.position,
        "truth": truth,
        "metres_per_pixel": estimates[0].metres_per_pixel,
        "title": f"all four together: {error}",
        "corners": fused.corners,
        "size": opened.dataset.satellite_size,
    }
    figure = pictures.semi_positive_figure(
        batch["panorama"][0].permute(1, 2, 0).numpy(),
        tiles,
        together,
        heading=estimates[0].true_heading,
        predicted_heading=estimates[0].heading,
        FoV=opened.settings["FoV"],
        title=f"{opened.list_name} {i}: {opened.heat_map.name}",
    )
    lines = [f"index: {i}", f"panorama: {samples.panorama_name(opened.dataset, i)}", opened.heat_map.name]
    for kind, one in zip(KINDS, estimates, strict=True):
        found = "the panorama lies outside"
        if one.truth:
            found = f"error {one.error_px:.3f} px at {samples.REFERENCE_PX}, {one.error_m:.3f} m"
        lines.append(f"{kind}: {found}")
    scale = SATELLITE_PX / opened.dataset.satellite_size
    latitude, longitude = latitude_longitude(*(scale * (fused.position + fused.origin)))
    lines.append(f"all four together: error {error_px:.3f} px at {samples.REFERENCE_PX}, {error_m:.3f} m")
    lines.append(f"prediction (latitude, longitude): {latitude:.7f} {longitude:.7f}")
    return figure, "\n".join(lines) + "\n"


def main(args):
    from dataset.vigor import open_split
    from model import load_model

    opened = samples.open_samples(args, load_model, open_split)
    folder = samples.output_folder(args)
    for i in opened.indices:
        figure, report = draw(opened, i)
        name = f"{opened.list_name}_{i:06d}"
        samples.save_report(report, folder, name)
        samples.save_figure(figure, folder, name, args)


if __name__ == "__main__":
    options.run_script(main, build_parser(), user_errors)
