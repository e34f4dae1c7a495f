r"""Train a network that finds a panorama inside a satellite image.

    python train_VIGOR.py --area samearea --batch_size 10 --learning_rate 8e-5 --epochs 120 \
        --d_model 320 --n_layer 2 --use_mask True --use_mixstyle True --mixstyle_mix random
    python train_VIGOR.py --network light --satellite_size 128 --panorama_size 128 256 \
        --batch_size 4 --epochs 8        # minutes
    python train_VIGOR.py --resume runs/VIGOR/<run>
    torchrun --nproc_per_node 8 train_VIGOR.py --area samearea

Everything that a run leaves lies in runs/VIGOR/<time>_...: settings, checkpoints, log. More in
docs/TRAINING.md.
"""

from common import flags
from engine.training.settings import add_training
from engine.training.setup import training_run


def build_parser():
    parser = flags.make_parser(__doc__)
    add_training(parser)
    return parser


def main(args):
    given = dict(vars(args))
    with training_run(given, given.pop("resume"), given.pop("init")) as trainer:
        trainer.fit()


if __name__ == "__main__":
    flags.run_script(main, build_parser())
