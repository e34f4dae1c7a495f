"""The ways of matching by name. Another one is a module of this folder and a line here, and its name in `model.settings`."""

from model.matching.ground_plane import GroundPlaneMatching
from model.matching.published import PublishedMatching

WAYS = {"published": PublishedMatching, "ground_plane": GroundPlaneMatching}
