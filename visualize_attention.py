"""Draw what a network looked at: Grad-CAM of both branches, every layer's cross-attention, and matching on the ground.

    python visualize_attention.py --resume runs/VIGOR/<run>/best.pt --img_idx 5606
    python visualize_attention.py --resume runs/VIGOR/<run>/best.pt --img_idx 5606 --num_samples 3 --head 0 1

Pictures go to visualizations_cross_attention/ beside the checkpoint: an overview, a sheet with every layer and, with ground-plane
matching, the panorama on the ground and the matching map of each stage.
"""

from functools import partial

from dataset.index import AREAS, SPLITS
from engine import options, run, samples


def build_parser():
    parser = options.make_parser(__doc__.split("\n")[0], __doc__.split("\n\n")[1])
    samples.add_samples(parser, AREAS, SPLITS)
    group = parser.add_argument_group("drawing")
    group.add_argument(
        "--num_samples", type=options.at_least(1), default=1, metavar="N", help="so many pairs, from each index on"
    )
    group.add_argument(
        "--head",
        type=options.at_least(0),
        nargs="+",
        default=[],
        metavar="N",
        help="also sheets of single attention heads, counted from 0",
    )
    samples.add_output(parser, "visualizations_cross_attention")
    return parser


def user_errors():
    from dataset.images import DataError
    from model import CheckpointError

    return DataError, CheckpointError, run.RunError


def ground_plane_panels(result, batch, one, settings):
    """What `ground_plane_figure` takes of the first sample: the panorama on the ground, its template, the matching maps."""
    import numpy as np

    from engine.explain import feature_colours, on_the_ground
    from model.ground_plane import FINEST, STRIDES, feature_shift, sample_panorama, template_cells

    matched, radius, metres = result.ground_plane, settings["matching_radius"], batch["metres_per_pixel"]
    heading = one.heading or 0.0
    width = batch["panorama"].shape[-1]
    span = 360 * width / settings["panorama_size"][1]
    reach = 150
    cells = template_cells(metres * 0 + radius / reach, reach, settings["camera_height"])
    ground = on_the_ground(batch["panorama"], cells, sample_panorama, heading=heading, span=span)

    template = matched.templates[FINEST][0].float().cpu().numpy()  # (C, n, n)
    reach, stride = template.shape[-1] // 2, STRIDES[FINEST]
    shift = feature_shift(stride)
    distance, bearing, _ = (x[0].cpu().numpy() for x in template_cells(metres * stride, reach, settings["camera_height"], shift))
    first = float(matched.headings[0])
    shown = (distance <= radius) & (np.abs((bearing - first + 180) % 360 - 180) <= span / 2)
    cell = float(metres[0]) * stride
    west, east = (-reach - 0.5 + shift) * cell, (reach + 0.5 + shift) * cell
    panel = {
        "colours": feature_colours(template, shown),
        "extent": (west, east, -east, -west),
        "rotation": heading - first,
        "view": (heading, span),
    }
    maps = {STRIDES[key]: values[0, 0].float().cpu().numpy() for key, values in matched.maps.items()}
    return ground, panel, dict(sorted(maps.items()))


def assumed_heads(model_path):
    """Whether a published checkpoint keeps to itself how many attention heads its network has; the weights do not tell."""
    from model.published import read_checkpoint

    file = samples.checkpoint_file(model_path)
    flags = read_checkpoint(file).get("args") or run.read_args(file.parent)
    return "num_heads" not in (flags if isinstance(flags, dict) else vars(flags))


def draw(opened, sample, heads, title, heads_word):
    """{what it shows: figure} of one sample; heads: those that get a sheet of their own."""
    from torch.utils.data import default_collate

    from engine import attention_pictures
    from engine.batch import to_device
    from engine.explain import grad_cam, look

    model, settings = opened.model, opened.settings
    batch = to_device(default_collate([sample]), opened.device)
    result, (one,) = samples.estimate(partial(model, return_attention=True), batch, settings, opened.heat_map)
    cams = [
        grad_cam(model, batch, backbone.blocks[-1], one.position)
        for backbone in (model.panorama_backbone, model.satellite_backbone)
    ]
    views = [batch[name][0].permute(1, 2, 0).cpu().numpy() for name in ("panorama", "satellite")]
    anchors, size, FoV = (settings["vert_anchors"], settings["horz_anchors"]), settings["satellite_size"], settings["FoV"]
    title += f": error {samples.describe_error(one)}" if one.truth else ""

    def looks(head=None):
        return [look(layer, anchors, one.position, size, head) for layer in result.attention]

    def sheet(words, head=None):
        return attention_pictures.layers_figure(views, one, looks(head), FoV=FoV, title=f"{title}\nattention, {words}")

    last = f"{title}\nattention of the last of {len(result.attention)} layers, {heads_word}"
    figures = {"overview": attention_pictures.overview_figure(views, one, cams, looks()[-1], FoV=FoV, title=last)}
    figures["layers"] = sheet(heads_word)
    figures |= {f"layers_head{head:02d}": sheet(f"head {head}", head) for head in heads}
    if result.ground_plane is not None:
        ground, template, maps = ground_plane_panels(result, batch, one, settings)
        figures["ground_plane"] = attention_pictures.ground_plane_figure(
            ground, views[1], template, maps, one, radius=settings["matching_radius"], title=title
        )
    return figures


def main(args):
    from dataset.vigor import open_split
    from model import load_model

    if args.idx:
        args.idx = [range(given.start, given.stop + args.num_samples - 1) for given in args.idx]
    opened = samples.open_samples(args, load_model, open_split)
    num_heads = opened.settings["num_heads"]
    if beyond := [head for head in args.head if head >= num_heads]:
        raise run.RunError(f"--head {beyond[0]}: this network has {num_heads} attention heads, 0 to {num_heads - 1}")
    heads_word = f"mean over {num_heads} heads"
    if opened.settings["published"] and assumed_heads(args.model_path):
        heads_word += " (assumed)"
        print(f"note: this published checkpoint does not say how many attention heads it has; {num_heads} are assumed")
    folder = samples.output_folder(args)
    for i in opened.indices:
        title = f"{opened.list_name} {i}"
        for name, figure in draw(opened, opened.dataset[i], args.head, title, heads_word).items():
            samples.save_figure(figure, folder, f"{opened.list_name}_{i:06d}_{name}", args)


if __name__ == "__main__":
    options.run_script(main, build_parser(), user_errors)
