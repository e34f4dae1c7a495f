"""Draw what a network looked at: Grad-CAM of both branches, every layer's cross-attention, and matching on the ground.

    python visualize_attention.py --resume runs/VIGOR/<run>/best.pt --img_idx 5606
    python visualize_attention.py --resume runs/VIGOR/<run>/best.pt --img_idx 5606 --num_samples 3 --head 0 1

Pictures go to visualizations_cross_attention/ beside the checkpoint: an overview, a sheet with every layer and, for networks that
match on the ground, the panorama on the ground and the matching map of each stage. The light network has no cross-attention.
"""

from common import flags
from common.errors import UserError
from engine.visualization.attention import attention_figures
from engine.visualization.flags import add_output, add_samples, read_output, read_samples


def build_parser():
    parser = flags.make_parser(__doc__)
    add_samples(parser)
    group = parser.add_argument_group("drawing")
    group.add_argument("--num_samples", type=flags.COUNT, default=1, metavar="N", help="so many pairs, from each index on")
    group.add_argument(
        "--head",
        type=flags.COUNT_OR_NONE,
        nargs="+",
        default=[],
        metavar="N",
        help="also sheets of single attention heads, counted from 0",
    )
    add_output(parser, "visualizations_cross_attention")
    return parser


def main(args):
    samples = read_samples(args, args.num_samples)
    num_heads = samples.loaded.settings.num_heads
    if args.head and samples.loaded.settings.network == "light":
        raise UserError(f"--head {args.head[0]}: the light network has no cross-attention; leave it out")
    if beyond := [head for head in args.head if head >= num_heads]:
        raise UserError(f"--head {beyond[0]}: this network has {num_heads} attention heads, 0 to {num_heads - 1}")
    if "num_heads" in samples.loaded.assumed:
        print(f"note: this published checkpoint does not say how many attention heads it has; {num_heads} are assumed")
    output = read_output(args)
    for i in samples.indices:
        for name, figure in attention_figures(samples, i, args.head).items():
            output.save_figure(figure, f"{samples.list_name}_{i:06d}_{name}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
