"""A street between two crossings, in metres (u, v) along the street grid."""

from dataclasses import dataclass

import numpy as np

from dataset.mini_vigor.city import rect


@dataclass
class Segment:
    """A street between two crossings, which runs along u (axis 0) or v (axis 1). All in metres."""

    axis: int
    key: tuple  # (axis, number of the first crossing along u, along v)
    middle: float
    width: float
    start: float
    stop: float

    def rect(self, along, across):
        """Outline (u, v) of a rectangle; `across`: two distances from the street's middle, in any order."""
        return rect(along, [self.middle + edge for edge in sorted(across)], self.axis)

    def place(self, along, across):
        """Points given along and across the street -> (n, 2) (u, v)."""
        points = np.stack([along, self.middle + np.asarray(across)], 1)
        return points if self.axis == 0 else points[:, ::-1]

    def ends(self, inset=0):
        """Positions so many metres inside both ends, each with the sign of the direction to the other end."""
        return (self.start + inset, 1), (self.stop - inset, -1)

    def arriving(self, inward):
        """Side (-1 or 1) of the traffic that arrives at an end; traffic keeps right."""
        return -1 if (inward > 0) == (self.axis == 0) else 1
