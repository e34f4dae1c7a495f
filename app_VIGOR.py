"""A page in the browser: two images of your own, a whole city, every pair of an evaluation; on the machine that holds the data.

    python app_VIGOR.py                                                     # the networks of the repository
    python app_VIGOR.py --model_path runs/VIGOR/<run> --dataset_root /data/VIGOR --port 7860

It listens on 127.0.0.1 alone unless --host says otherwise, and asks no other machine for anything. docs/PAGE.md has more.
"""

from engine.evaluation.conditions import Source

from common import flags, settings
from engine.app.page import serve


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what is shown")
    group.add_argument("--model_path", metavar="FILE", help="a checkpoint or a run folder; without it the repository's networks")
    group.add_argument("--runs_root", default="runs", metavar="DIR", help="evaluations below it are offered, and the run's own")
    group.add_argument("--index_root", metavar="DIR", help="of cities (default: search/index beside the checkpoint)")
    flags.add_settings(parser, Source)
    flags.add_device(group := parser.add_argument_group("machine"))
    group.add_argument("--port", type=settings.Number(int, least=1, most=65535), default=7860, metavar="N", help="to listen on")
    group.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="whose; 0.0.0.0 lets other machines in")
    return parser


def main(args):
    serve(args.model_path, Source.pick(vars(args)), args.runs_root, args.index_root, args.device, args.host, args.port)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
