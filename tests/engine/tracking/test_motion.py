"""How cameras move by what sensors give: kernels, velocity from GPS, the weight of near frames."""

import numpy as np
import pytest
import torch

from common.geometry import wrap_degrees
from engine.tracking.lattice import Level
from engine.tracking.motion import Motion, MotionNoise, Sensed, motions_of, taps, weight_after

NOISE = MotionNoise()


@pytest.mark.parametrize("spread", [0.5, 0.69, 0.7, 1.3, 4.0])
def test_taps_have_the_mean_and_the_spread_asked_for(spread):
    shift = torch.tensor([-14.3, 2.5, 0.2, 7.0])
    first, weights = taps(shift, spread)
    n = first + torch.arange(weights.shape[1])
    mean = (weights * n).sum(1)
    assert mean.numpy() == pytest.approx(shift.numpy(), abs=1e-3)
    variance = (weights * (n - mean[:, None]) ** 2).sum(1)
    assert variance.sqrt().numpy() == pytest.approx(spread, abs=2e-3)
    assert float(weights.min()) >= 0


def test_taps_of_whole_cells_blur_nothing():
    first, weights = taps(torch.tensor([3.0]), 0.0)
    assert [first + i for i in weights[0].nonzero().flatten().tolist()] == [3]


def drive(turn=0.0, looks=0.0, frames=13, seed=0, outlier=None):
    """(`Sensed` with GPS of 2 m, compass and time at 8 m/s, the true (forward, left) ways of its frames).

    turn: degrees per frame; looks: how far the camera looks to the right of its way.
    """
    rng = np.random.default_rng(seed)
    course = 40.0 + turn * np.arange(frames)
    way = np.radians(course[:-1] + turn / 2)
    place = np.concatenate([np.zeros((1, 2)), np.cumsum(4 * np.stack([-np.cos(way), np.sin(way)], 1), 0)])
    gps = place + rng.normal(0, 2 / 2**0.5, place.shape)
    if outlier is not None:
        gps[outlier] += (60, -40)
    heading = wrap_degrees(course + looks)
    sensed = [Sensed(0.5 * t, tuple(gps[t]), 2.0, heading=heading[t]) for t in range(frames)]
    off = np.radians(looks)
    return sensed, (4 * np.cos(off), 4 * np.sin(off))


@pytest.mark.parametrize(
    "given", [{}, {"turn": 12.0}, {"looks": 90.0}, {"looks": -30.0, "turn": -8.0}, {"outlier": 6}], ids=str
)
def test_gps_and_compass_give_the_velocity(given):
    """In the camera's axes, through a bend and past an outlier; a swapped or flipped axis is metres off."""
    errors = []
    for seed in range(8):
        sensed, way = drive(seed=seed, **given)
        motion = motions_of(sensed, NOISE)[6]
        errors.append(np.hypot(motion.forward - way[0], motion.left - way[1]))
        assert motion.spread_m < 0.6
    assert np.median(errors) < 0.5


@pytest.mark.parametrize("without", ["place", "heading", "time"])
def test_without_one_of_them_the_largest_speed_alone_is_known(without):
    sensed = [one._replace(**{without: None}) for one in drive()[0]]
    motion = motions_of(sensed, NOISE)[6]
    seconds = 1.0 if without == "time" else 0.5
    assert motion[:3] == (0, 0, NOISE.max_speed * seconds / 2)


def test_odometry_is_preferred_to_gps():
    sensed = [one._replace(forward=1.0, left=0.5, turn=3.0) for one in drive()[0]]
    motion = motions_of(sensed, NOISE)[6]
    assert (motion.forward, motion.left, motion.turn, motion.rare_deg) == (1.0, 0.5, 3.0, None)


def test_near_frames_weigh_less():
    level = Level(0.25, 2.0)

    def weight(forward, spread=0.02):
        return weight_after(Motion(forward, 0.0, spread), level)

    assert weight(0.0) < 0.01  # a camera at rest says nothing new
    assert weight(0.0) < weight(1.0) < weight(4.0) < weight(40.0)
    assert weight(40.0) == pytest.approx(weight_after(None, level), rel=0.01)
    assert weight(4.0, 3.0) > weight(4.0)  # frames whose way is not known are not averaged
