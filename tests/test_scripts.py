"""The command lines of the scripts: refusals, the published flags, help."""

import pytest
from children import SMALL, refusal, script_module


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--pos_only maybe", "--pos_only: 'maybe'"),
        ("--area suburbs", "--area: invalid choice: 'suburbs'"),
        ("--mixstyle_mix swap", "--mixstyle_mix: invalid choice: 'swap'"),
        ("--satellite_size 100", "--satellite_size: '100'"),
        ("--epochs 0", "--epochs: '0'"),
        ("--FoV 400", "--FoV: '400'"),
        ("--scale_noise 1.5 --augment none", "--scale_noise 1.5"),
        ("--warmup 3days", "--warmup: '3days'"),
        ("--device tpu", "--device tpu"),
        ("--mixstyle_mix crossdomain --batch_size 1", "--batch_size 1"),
        ("--accumulate 99", "--accumulate 99"),
        ("--backbone efficientnet_b0 --backbone_weights nowhere.pth", "nowhere.pth"),
        ("--backbone thin --backbone_weights nowhere.pth", "--backbone_weights nowhere.pth"),
        ("--d_model 100 --num_heads 8", "d_model 100"),
        ("--resume nowhere", "nowhere: "),
        ("--init nowhere", "nowhere: "),
        ("--hard_negatives 1", "--hard_negatives 1"),  # the published network cannot search
    ],
)
def test_a_wrong_value_is_refused_in_one_line(vigor_root, tmp_path, capsys, flags, message):
    line = f"{SMALL} --max_steps 1 --epochs 1 --dataset_root {vigor_root} --runs_root {tmp_path} {flags}"
    assert message in refusal("train_VIGOR", line, capsys)
    assert not list(tmp_path.iterdir()), "no run folder for a run that never began"


def test_the_published_command_is_taken():
    """Every flag of the published commands, in both spellings."""
    parser = script_module("train_VIGOR").build_parser()
    published = (
        "--area samearea --batch_size 10 --learning_rate 8e-5 --epochs 120 --d_model 320 --n_layer 2 "
        "--use_mask True --use_mixstyle True --mixstyle_mix random --pos_only False --ori_noise 180 "
        "--FoV 360 --vert_anchors 16 --horz_anchors 16 --num_heads 8 --block_exp 4 --patience 7 "
        "--min_delta 0.01 --temperature 0.1 --weight_decay 2e-3 --dropout_rate 0.3 --mixstyle_p 0.3 "
        "--mixstyle_alpha 0.1 --dataset_root /VIGOR"
    )
    args = parser.parse_args(published.split())
    assert args.pos_only is False and args.use_mask is True and args.learning_rate == 8e-5
    short = parser.parse_args("-l 1e-4 -b 4 -f 180".split())
    assert (short.learning_rate, short.batch_size, short.FoV) == (1e-4, 4, 180)


NAMED = "train_VIGOR", "eval_VIGOR", "search_VIGOR", "track_VIGOR", "visualize_loc"


@pytest.mark.parametrize("name", NAMED)
def test_help_shows_defaults_and_an_example(name):
    text = script_module(name).build_parser().format_help()
    assert "examples:" in text and f"python {name}.py" in text and "(default:" in text
