"""The histogram filter on drawn likelihoods: signs, order and exactness of motions, the way back, doubt."""

import resource

import numpy as np
import pytest
import torch

from common.geometry import wrap_degrees
from engine.tracking.filter import Filtered, advance, by_compass, predict, predict_back
from engine.tracking.lattice import Belief, Lattice, Level, change_level, crop, squares, uniform, window
from engine.tracking.motion import Motion, MotionNoise, Sensed
from engine.tracking.pose import estimate, mean_heading
from engine.tracking.tracker import Beliefs, track

FINE, COARSE = Level(0.5, 2.0, 20.0, 60.0, sharper=1.7), Level(2.0, 10.0, sharper=1.7)
LEVELS = FINE, COARSE
NOISE = MotionNoise()
TURNS = [0, 12, 25, 30, 10, 0, -15, -30, -5, 0, 8, 20, 0, 0]  # degrees, clockwise
WAYS = [(2.0 + 0.3 * i, 0.6 - 0.15 * i) for i in range(len(TURNS))]  # forward, left: each frame another


def drive(heading=70.0, place=(3.0, -4.0)):
    """(places (T, 2) south and east, headings (T,)) of a drive by `WAYS` and `TURNS`, written out anew."""
    places, headings = [np.array(place)], [heading]
    for (forward, left), turn in zip(WAYS, TURNS, strict=True):
        ahead = np.radians(headings[-1])
        north = forward * np.cos(ahead) + left * np.cos(ahead - np.pi / 2)
        east = forward * np.sin(ahead) + left * np.sin(ahead - np.pi / 2)
        places.append(places[-1] + (-north, east))
        headings.append(headings[-1] + turn)
    return np.array(places), wrap_degrees(np.array(headings))


def sensed_of(ways=WAYS, turns=TURNS, **first):
    odometry = [Sensed(forward=f, left=s, turn=t) for (f, s), t in zip(ways, turns, strict=True)]
    return [Sensed(**first), *odometry]


def gaussian(lattice, place, sigma=0.4, heading=None, sigma_deg=4.0):
    """The log-likelihood of an image that sees its place and, if given, its heading."""
    headings, south, east = lattice.centres()
    variance = sigma**2 + lattice.level.cell_m**2 / 12
    squares = (south[:, None] - place[0]).square() + (east - place[1]).square()
    log = (-squares / (2 * variance)).float()[None] + np.log(100**2 / (2 * np.pi * variance))
    if heading is not None:
        variance = sigma_deg**2 + lattice.level.step_deg**2 / 12
        off = wrap_degrees(headings - heading)
        log = log - (off.square() / (2 * variance))[:, None, None] + np.log(360 / np.sqrt(6.28 * variance))
    return log


def follow(folder, sensed, seen, places, headings, with_headings=True, start=None):
    """The track of a drive some of whose frames see where they are."""

    def likelihood(frame, belief):
        if frame not in seen:
            return torch.zeros(1, 1, 1)
        return gaussian(belief.lattice, places[frame], heading=headings[frame] if with_headings else None)

    start = start or uniform(window(COARSE, (0, 0), 30.0))
    return track(sensed, likelihood, start, LEVELS, NOISE, Beliefs(folder))


def errors(tracked, places, headings, which="smoothed"):
    poses = [getattr(one, which) for one in tracked]
    metres = np.hypot(*(np.array([pose.place for pose in poses]) - places).T)
    return metres, abs(wrap_degrees(np.array([pose.heading for pose in poses]) - headings))


def test_a_motion_goes_forward_left_and_clockwise():
    p = torch.zeros(1, 1, 1)
    p[0] = 1
    belief = Belief(Lattice(FINE, 45, 10, 20, (1, 1, 1)), p)  # looks east from 5.25 m south, 10.25 m east
    pose = estimate(predict(belief, Motion(4.0, 1.0, 0.05, 10.0, 0.5)))
    assert pose.place == pytest.approx((4.25, 14.25), abs=1e-3)
    assert pose.heading == pytest.approx(100.0, abs=0.01)


@pytest.mark.parametrize("which", ["filtered", "smoothed"])
def test_a_drive_is_carried_by_its_motions(tmp_path, which):
    places, headings = drive()
    tracked = follow(tmp_path, sensed_of(), {0, 1, 2, 3}, places, headings)
    metres, degrees = errors(tracked, places, headings, which)
    assert metres[4:].max() < 0.8 and degrees[4:].max() < 1.5


WRONG = {
    "forward is backward": ([(-f, s) for f, s in WAYS], TURNS),
    "left is right": ([(f, -s) for f, s in WAYS], TURNS),
    "forward and left are swapped": ([(s, f) for f, s in WAYS], TURNS),
    "clockwise is counter-clockwise": (WAYS, [-turn for turn in TURNS]),
    "ways are one frame late": ([WAYS[0], *WAYS[:-1]], [0, *TURNS[:-1]]),
    "ways are one frame early": ([*WAYS[1:], WAYS[-1]], [*TURNS[1:], 0]),
}


@pytest.mark.parametrize("ways, turns", WRONG.values(), ids=WRONG)
def test_a_wrong_motion_would_be_noticed(tmp_path, ways, turns):
    """What the tests here can tell: each of these mistakes moves the end of the drive."""
    places, headings = drive()
    tracked = follow(tmp_path, sensed_of(ways, turns), {0, 1, 2, 3}, places, headings)
    metres, degrees = errors(tracked, places, headings)
    assert metres[-1] > 1.2 or degrees[-1] > 3


def test_an_error_that_all_frames_share_stays_in_the_covariance(tmp_path):
    """Exact images, all 0.45 m off in one direction: many do not make the track sure of a wrong place."""
    places, headings = drive()

    def likelihood(frame, belief):
        return gaussian(belief.lattice, places[frame] + (0.0, 0.45), 0.1, headings[frame])

    start = uniform(window(COARSE, (0, 0), 30.0))
    tracked = track(sensed_of(), likelihood, start, LEVELS, NOISE, Beliefs(tmp_path))
    off = [one.smoothed.place - place for one, place in zip(tracked, places, strict=True)]
    inside = [x @ np.linalg.solve(one.smoothed.matrix, x) < 5.99 for x, one in zip(off, tracked, strict=True)]
    assert np.mean(inside) > 0.9


def test_early_frames_learn_from_late_ones(tmp_path):
    """Nothing is seen before the last two frames; the way back is that of the motions."""
    places, headings = drive()
    last = len(places) - 1
    tracked = follow(tmp_path, sensed_of(), {last - 1, last}, places, headings)
    metres, degrees = errors(tracked, places, headings)
    assert errors(tracked, places, headings, "filtered")[0][0] > 1
    assert metres.max() < 2.5 and np.median(metres) < 1.2  # first frames are kept in cells of 2 m
    assert degrees[-6:].max() < 4


def test_headings_follow_from_the_way_alone(tmp_path):
    """Images that see places and no headings, and odometry, tell the heading."""
    places, headings = drive()
    tracked = follow(tmp_path, sensed_of(), set(range(20)), places, headings, with_headings=False)
    metres, degrees = errors(tracked, places, headings)
    assert metres[1:].max() < 0.8 and degrees[3:].max() < 4


def test_a_compass_is_clockwise_from_north():
    lattice = window(FINE, (0, 0), 1.0)
    headings = lattice.centres()[0]
    compass = by_compass(lattice, 90.0, 2.0)
    assert float(headings[compass.argmax()]) == 90.0
    assert float(compass.mean()) == pytest.approx(1, abs=1e-3)


def test_a_reversed_motion_leads_back():
    belief = Belief(Lattice(FINE, 20, 10, 20, (1, 1, 1)), torch.ones(1, 1, 1))
    motion = Motion(4.0, 1.5, 0.05, 60.0, 0.5)
    back, start = estimate(predict(predict(belief, motion), motion.reversed)), estimate(belief)
    assert back.place == pytest.approx(start.place, abs=0.02)
    assert back.heading == pytest.approx(start.heading, abs=0.1)


def test_the_way_back_is_the_transpose_of_the_way():
    rng = torch.Generator().manual_seed(1)
    for heading, K in ((-3, 5), (0, 180)):
        lattice = Lattice(FINE, heading, 3, -7, (K, 6, 9))
        p, motion = torch.rand(lattice.shape, generator=rng), Motion(3.1, -0.7, 0.4, 7.3, 2.0)
        moved = predict(Belief(lattice, p), motion)
        r = torch.rand(moved.p.shape, generator=rng)
        assert float(moved.p.sum()) == pytest.approx(float(p.sum()), rel=1e-4)
        back = predict_back(r, lattice, motion)
        assert float((moved.p * r).sum()) == pytest.approx(float((p * back).sum()), rel=1e-4)


def test_levels_keep_place_heading_and_probability():
    belief = crop(Belief(window(FINE, (3, -8), 12.0, 350.0, 30.0), torch.ones(17, 48, 48)))
    lattice = belief.lattice
    p = gaussian(lattice, (2.3, -9.1), 1.5, 352.0)
    belief = Belief(lattice, (p.exp() / p.exp().sum()))
    coarse = Belief(*change_level(belief.p, lattice, COARSE)[::-1])
    again = Belief(*change_level(coarse.p, coarse.lattice, FINE)[::-1])
    for other in (coarse, again):
        assert float(other.p.sum()) == pytest.approx(1, abs=1e-4)
        pose = estimate(other)
        assert pose.place == pytest.approx((2.3, -9.1), abs=0.15)
        assert wrap_degrees(pose.heading - 352) == pytest.approx(0, abs=0.6)


def test_the_squares_that_hold_most_of_a_belief():
    """Two spots 40 m apart, the larger first; a third that holds too little is left out."""
    lattice = window(COARSE, (0, 0), 60.0)
    p = torch.zeros(lattice.shape)
    for (k, i, j), share in {(3, 10, 40): 0.3, (9, 30, 20): 0.6, (0, 50, 50): 0.1}.items():
        p[k, i, j] = share
    found = list(squares(Belief(lattice, p), 10.0, 3, 0.2))
    assert [estimate(part).place for part in found] == [(1.0, -19.0), (-39.0, 21.0)]
    assert [mean_heading(part) for part in found] == pytest.approx([90.0, 30.0])


def test_frames_of_elsewhere_are_doubted_and_the_track_is_found_again(tmp_path):
    places, headings = drive()
    rng = np.random.default_rng(0)
    shown = places.copy()
    shown[6:10] = rng.uniform(-18, 18, (4, 2)) + places[6:10] + (25, 25)
    tracked = follow(tmp_path, sensed_of(), set(range(20)), shown, headings)
    metres, _ = errors(tracked, places, headings, "filtered")
    assert metres[2:].max() < 1
    assert [one.doubted for one in tracked] == [6 <= frame < 10 for frame in range(len(tracked))]


def test_a_belief_that_is_wrong_widens_and_finds_its_way(tmp_path):
    """It begins 20 m off and is sure of it."""
    places, headings = drive()
    start = uniform(window(FINE, places[0] + (20, 5), 2.0, headings[0], 10.0))
    tracked = follow(tmp_path, sensed_of(), set(range(20)), places, headings, start=start)
    metres, _ = errors(tracked, places, headings, "filtered")
    assert metres[2] > 10 and metres[-4:].max() < 1
    metres, degrees = errors(tracked, places, headings)  # the first frames are found from the later ones
    assert metres.max() < 1 and degrees.max() < 4


def test_frames_before_a_jump_keep_their_places(tmp_path):
    """A ferry carries the camera, which odometry does not tell: what was right before stays so."""
    places, headings = drive()
    places[5:] += (20, 15)
    tracked = follow(tmp_path, sensed_of(), set(range(20)), places, headings)
    metres, _ = errors(tracked, places, headings)
    assert metres[1:5].max() < 1 and metres[-3:].max() < 1


def test_a_spread_belief_still_smooths_back(tmp_path):
    """The part that is spread takes part in the way back: after it, the smoothed frames are right as well."""
    places, headings = drive()
    before = Filtered(uniform(window(FINE, places[0], 2.0, headings[0], 10.0)), 0.9, 5)
    ahead = advance(before, Motion(2.0, 0.0, 0.05, 0.0, 1.0))
    assert float(ahead.p.sum()) == pytest.approx(1, abs=1e-3)
    assert max(ahead.lattice.shape[1:]) * FINE.cell_m > 60


def test_gps_with_outliers_holds_a_track_without_odometry(tmp_path):
    places, headings = drive()
    rng = np.random.default_rng(3)
    gps = places + rng.normal(0, 1.5, places.shape)
    gps[5] += (40, -30)
    sensed = [Sensed(0.5 * t, tuple(place), 2.0) for t, place in enumerate(gps)]
    tracked = follow(tmp_path, sensed, set(), places, headings)
    metres, _ = errors(tracked, places, headings)
    assert metres.max() < 5 and np.median(metres) < 1.7


def test_a_track_goes_on_where_it_was_stopped(tmp_path):
    places, headings = drive()
    whole = follow(tmp_path / "whole", sensed_of(), set(range(20)), places, headings)
    follow(tmp_path / "part", sensed_of()[:6], set(range(20)), places[:6], headings)
    asked = []

    def likelihood(frame, belief):
        asked.append(frame)
        return gaussian(belief.lattice, places[frame], heading=headings[frame])

    start = uniform(window(COARSE, (0, 0), 30.0))
    again = track(sensed_of(), likelihood, start, LEVELS, NOISE, Beliefs(tmp_path / "part"))
    assert asked == list(range(6, len(places))) and again == whole


@pytest.mark.slow
def test_memory_does_not_grow_with_the_drive(tmp_path):
    """1,000 frames take as much as 10, within 100 MB, forward and back; the camera drives in circles."""
    sensed = [Sensed(heading=0.0), *[Sensed(forward=1.0, left=0.0, turn=12.0)] * 999]
    used = []

    class Watched(Beliefs):
        def load(self, frame):
            used.append(resident_mb())
            return super().load(frame)

    def likelihood(frame, belief):
        used.append(resident_mb())
        around = np.radians(12.0 * np.arange(frame))
        place = np.array([-np.cos(around).sum(), np.sin(around).sum()])
        return gaussian(belief.lattice, place, heading=wrap_degrees(12.0 * frame))

    start = uniform(window(COARSE, (0, 0), 8.0))
    tracked = track(sensed, likelihood, start, LEVELS, NOISE, Watched(tmp_path))
    assert len(tracked) == 1000 and max(used[10:]) - max(used[:10]) < 100
    assert tracked[-1].smoothed.near > 0.9


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
