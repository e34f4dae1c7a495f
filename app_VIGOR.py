"""A page in the browser: two images of your own, whole cities, evaluations.

    python app_VIGOR.py                                                     # the networks of the repository
    python app_VIGOR.py --model_path runs/VIGOR/<run> --dataset_root /data/VIGOR --port 7860

It listens on 127.0.0.1 unless --host says otherwise, and connects to no other machine; see docs/PAGE.md.
It needs the packages of requirements/page.txt.
"""

from common import flags
from common.settings import Number
from dataset.protocol import Source
from engine.app.page import serve


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what is shown")
    text = "a checkpoint or a run folder; without it the repository's networks"
    group.add_argument("--model_path", metavar="FILE", help=text)
    text = "folder below which evaluations are offered, beside those of --model_path"
    group.add_argument("--runs_root", default="runs", metavar="DIR", help=text)
    text = "folder of the cities' search indexes (default: search/index beside the checkpoint)"
    group.add_argument("--index_root", metavar="DIR", help=text)
    flags.add_settings(parser, Source)
    flags.add_device(group := parser.add_argument_group("machine"))
    port = Number(int, least=1, most=65535)
    group.add_argument("--port", type=port, default=7860, metavar="N", help="port to listen on")
    text = "address to listen on; 0.0.0.0 lets other machines in"
    group.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    return parser


def main(args):
    source = Source.pick(vars(args))
    serve(args.model_path, source, args.runs_root, args.index_root, args.device, args.host, args.port)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
