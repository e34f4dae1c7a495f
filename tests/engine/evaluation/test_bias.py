"""What is wrong with a district as a whole, from tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from engine.evaluation import bias


def table(scale=1.0, shift=(0.0, 0.0), turn=0.0, wrong=0.2, reach=15.0, height=2.5, seed=0):
    """60 pairs of a city whose true metres per pixel are `scale` times the stated; a share is found wrongly.

    shift: (east, north) metres from the labels to the truth. height: of the cameras.
    """
    rng = np.random.default_rng(seed)
    label = rng.uniform(-reach, reach, (60, 2))
    found = (label + shift) / scale + rng.normal(0, 0.5, (60, 2))
    lost = rng.random(60) < wrong
    found[lost] = rng.uniform(-35, 35, (60, 2))[lost]
    turns = turn + rng.normal(0, 1, 60)
    turns[lost] = rng.uniform(-180, 180, 60)[lost]
    columns = {"label_east_m": label[:, 0], "label_north_m": label[:, 1]}
    columns |= {"east_m": (found - label)[:, 0], "north_m": (found - label)[:, 1]}
    return pd.DataFrame(columns | {"heading_error_deg": turns, "camera_height_m": height / scale})


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.25, 1.9])
def test_scale_and_shift_by_the_labels(scale):
    values, ends = bias.fit_district(table(scale, shift=(3.0, -1.0), turn=8.0))
    east, north, turn, log_scale, height = values
    assert np.exp(log_scale) == pytest.approx(scale, rel=0.03)
    assert (east * scale, north * scale) == pytest.approx((3.0, -1.0), abs=0.4)
    assert turn == pytest.approx(8, abs=0.5) and height == pytest.approx(2.5 / scale)
    assert (ends[0] <= values).all() and (values <= ends[1]).all() and np.ptp(ends[:, 3]) < 0.1


def test_labels_at_the_centre_tell_no_scale():
    values, ends = bias.fit_district(table(0.8, reach=0.5, shift=(3.0, 0.0)))
    assert np.isnan([values[3], *ends[:, 3]]).all() and values[0] * 0.8 == pytest.approx(3, abs=0.3)
    assert bias.moved_m(ends) > 2
    unknown, _ = bias.fit_district(table().drop(columns=["camera_height_m", "heading_error_deg"]))
    assert np.isnan(unknown[[2, 4]]).all() and np.isfinite(unknown[[0, 1, 3]]).all()


def test_the_most_suspect_district_comes_first():
    """Nothing is wrong with the first; by intervals of few pairs, something might be wrong with the third."""
    cases = {
        "sound": table(),
        "scaled": table(0.8),
        "few": table(1.05, wrong=0.6)[:10],
        "turned": table(turn=4.0),
    }
    fits = {name: bias.fit_district(rows) for name, rows in cases.items()}
    found = bias.district_table(fits, dict.fromkeys(fits, 60))
    assert found["district"].tolist()[:2] == ["scaled", "turned"]
    assert found["least_moved_m"].tolist() == sorted(found["least_moved_m"], reverse=True)
    assert found["least_moved_m"].iloc[-1] < 0.1 and found["scale"][0] == pytest.approx(0.8, rel=0.03)
    text = bias.describe_districts(found).splitlines()
    assert text[1].startswith("scaled") and "0.80 (" in text[1]
