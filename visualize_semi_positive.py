"""Draw one panorama against its positive and its three semi-positives, and what all four heat maps say.

    python visualize_semi_positive.py --model_path runs/VIGOR/<run>/best.pt --idx 30

Pictures, each with a text report, go to visualizations_semi_positive/ beside the checkpoint. The fifth
lays the four images side by side and multiplies their heat maps, as for a user with four overlapping images.
"""

from common import flags
from engine.visualization.flags import add_output, add_samples, read_output, read_samples
from engine.visualization.localization import semi_positives


def build_parser():
    parser = flags.make_parser(__doc__)
    add_samples(parser)
    add_output(parser, "visualizations_semi_positive")
    return parser


def main(args):
    samples = read_samples(args)
    output = read_output(args)
    output.about = samples.provenance()
    for i in samples.indices:
        figure, report = semi_positives(samples, i)
        output.save_report(report, f"{samples.list_name}_{i:06d}")
        output.save_figure(figure, f"{samples.list_name}_{i:06d}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
