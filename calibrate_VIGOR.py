"""Fit how far a network's heat maps are to be trusted, on pairs harder than those of its training.

    python calibrate_VIGOR.py --model_path runs/VIGOR/<run> --dataset_root data/others
    python calibrate_VIGOR.py --model_path runs/VIGOR/<run> --ori_noise 20 --limit 300

Each pair of a list that training has not seen, by default the test list, is predicted as it is and in harder
forms: other colours and textures, metres per pixel and headings that are a little wrong, cropped panoramas. A
temperature and a share of 'anywhere else' for each pair are fitted to what its heat map shows, and kept in
calibration.json beside the checkpoint, where evaluation, pictures and the Localizer find them.
"""

from common import flags
from common.device import pick_device
from common.settings import COUNT, COUNT_OR_NONE
from common.view import FORMS, View
from dataset.protocol import Protocol, Source
from engine.evaluation.reliability import calibrate
from engine.inference.asked import AS_TRAINED, asked_protocol, asked_view
from engine.inference.decode import NEAR_M
from engine.inference.temperatures import fit_files
from model.checkpoint import load_model


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("task")
    help = "a checkpoint, ours or published, or a run folder's best.pt"
    group.add_argument("--model_path", metavar="FILE", required=True, help=help)
    default = AS_TRAINED | {"tta": f"{FORMS} for whole panoramas"}
    flags.add_settings(parser, Source, Protocol, View, default=default)
    group = parser.add_argument_group("pairs of the fit")
    group.add_argument("--limit", type=COUNT, metavar="N", help="at most N pairs of the list")
    help = "harder forms of each pair, beside the pair as it is"
    group.add_argument("--copies", type=COUNT_OR_NONE, default=2, metavar="N", help=help)
    group = parser.add_argument_group("machine")
    group.add_argument("-b", "--batch_size", type=COUNT, default=4, metavar="N", help="pairs at a time")
    flags.add_device(group)
    return parser


def main(args):
    given = vars(args)
    device = pick_device(args.device)
    checkpoint = load_model(args.model_path, device)
    whole = given.get("FoV", checkpoint.view.FoV) == 360
    view = asked_view(checkpoint, ({"tta": FORMS} if whole else {}) | given)
    protocol = asked_protocol(checkpoint, given)
    portions = {name: given[name] for name in ("batch_size", "copies", "limit")}
    pairs, near = calibrate(checkpoint, view, protocol, Source.pick(given), device, **portions)
    says = f"fitted on {pairs} pairs, {100 * near:.0f} % of them found within {NEAR_M:g} m"
    print(f"{says}; kept in {fit_files(checkpoint)[-1]}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
