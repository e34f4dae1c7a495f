"""Draw what a network looked at: Grad-CAM of both branches, cross-attention, matching on the ground.

    python visualize_attention.py --resume runs/VIGOR/<run>/best.pt --img_idx 5606
    python visualize_attention.py --resume runs/VIGOR/<run>/best.pt --img_idx 5606 --num_samples 3 --head 0 1

Pictures go to visualizations_cross_attention/ beside the checkpoint: an overview, a sheet of all layers and,
if the network matches on the ground, the street image on the ground and the matching map of each stage. The
light network has no cross-attention.
"""

from common import flags
from common.errors import UserError
from common.settings import COUNT, COUNT_OR_NONE
from engine.visualization.explain import attention_figures
from engine.visualization.flags import add_output, add_samples, read_output, read_samples, refuse_flags


def build_parser():
    parser = flags.make_parser(__doc__)
    add_samples(parser)
    group = parser.add_argument_group("drawing")
    text = "pairs to draw from each index of --idx on (default: 1)"
    group.add_argument("--num_samples", type=COUNT, metavar="N", help=text)
    text = "also sheets of single attention heads, counted from 0"
    group.add_argument("--head", type=COUNT_OR_NONE, nargs="+", default=[], metavar="N", help=text)
    add_output(parser, "visualizations_cross_attention")
    return parser


def main(args):
    if args.worst:
        refuse_flags(args, ["num_samples"], "counts pairs from --idx on; it does not apply to --worst")
    samples = read_samples(args, args.num_samples or 1)
    settings = samples.checkpoint.settings
    heads = settings.num_heads
    if args.head and settings.network == "light":
        raise UserError(f"--head {args.head[0]}: the light network has no cross-attention; leave it out")
    if (most := max(args.head, default=0)) >= heads:
        raise UserError(f"--head {most}: this network has {heads} attention heads, 0 to {heads - 1}")
    if "num_heads" in samples.checkpoint.assumed:
        print(f"note: this published checkpoint names no number of attention heads; {heads} are assumed")
    output = read_output(args)
    for i in samples.indices:
        for name, figure in attention_figures(samples, i, args.head).items():
            output.save_figure(figure, f"{samples.list_name}_{i:06d}_{name}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
