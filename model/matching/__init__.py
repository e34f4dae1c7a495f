"""The ways of matching of the thesis's network, by the network's name. The light network has its own, in `model.light`."""

from model.matching.ground_plane import GroundPlaneMatching
from model.matching.published import PublishedMatching

WAYS = {"published": PublishedMatching, "ground_plane": GroundPlaneMatching}
