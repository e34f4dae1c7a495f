"""Heat maps of single images put together: as a drive, and rigidly."""

import numpy as np
import pytest
import torch

from common.geometry import latitude_longitude, mercator_px, metres_per_pixel
from engine.tracking.lattice import Level, window
from engine.tracking.maps import PlacedMap, follow_maps
from engine.tracking.pose import estimate
from engine.tracking.rigid import add_rigid

CENTRE = 41.8, -87.6
METRES = float(metres_per_pixel(CENTRE[0]))
HALF_M = 32.0


def gps_at(south, east):
    return tuple(
        float(x) for x in latitude_longitude(*np.add(mercator_px(*CENTRE), (south / METRES, east / METRES)))
    )


def street(south, east, centre, along=20.0):
    """A heat map of 1 m pixels that knows the place across a street to the east, and little along it."""
    rows, cols = np.indices((64, 64)) + 0.5 - HALF_M
    p = np.exp(-((rows + centre[0] - south) ** 2) / 2 - (cols + centre[1] - east) ** 2 / (2 * along**2))
    return p / p.sum()


def test_a_sequence_of_heat_maps_turns_a_corner():
    """A street to the east and one to the south: each alone leaves a ridge, both together a point."""
    places = np.array([(0, -8 + 4 * t) for t in range(5)] + [(4 * t, 8) for t in range(1, 5)], float)
    headings = [90.0] * 5 + [180.0] * 4
    motion = [(4, 0, 0)] * 4 + [(0, -4, 90)] + [(4, 0, 0)] * 3
    maps = []
    for place, heading in zip(places, headings, strict=True):
        centre = place + (5, -3)  # of its satellite image
        p = street(*place, centre)
        if heading == 180:
            p = street(place[1], place[0], centre[::-1]).T
        maps.append(PlacedMap(p, gps_at(*centre), 1.0, heading))
    followed = follow_maps(maps, motion)
    found = np.array([(one.latitude, one.longitude) for one in followed])
    found = (np.stack(mercator_px(*found.T), 1) - mercator_px(*CENTRE)) * METRES
    assert np.hypot(*(found - places).T).max() < 1
    assert [one.heading for one in followed] == pytest.approx(headings, abs=2)
    assert not any(one.doubted for one in followed)


LEVEL = Level(1.0, 90.0)


def spot(lattice, heading, south, east):
    headings, souths, easts = lattice.centres()
    log = -(((souths - south) ** 2)[:, None] + (easts - east) ** 2)[None].repeat(len(headings), 1, 1).double()
    return torch.where((headings == heading)[:, None, None], log, torch.tensor(-500.0))


@pytest.mark.parametrize(
    ("pose", "place"),
    [((4, 0, 0), (2.5, 7.5)), ((0, 3, 0), (-0.5, 3.5)), ((0, 0, 90), (2.5, 3.5)), ((4, 3, -90), (-0.5, 7.5))],
)
def test_rigid_frames_are_shifted_and_turned(pose, place):
    """The first looks east from 2.5 m south, 3.5 m east; the second is where it must be from there."""
    lattice = window(LEVEL, (0, 0), 16.0)
    own = torch.zeros(lattice.shape).double()
    other = spot(lattice, (90 + pose[2]) % 360, *place)
    found = estimate(add_rigid(lattice, [own, other], [(0, 0, 0), pose]))
    assert found.place == pytest.approx((2.5, 3.5), abs=0.05) and found.heading == pytest.approx(90, abs=1)
