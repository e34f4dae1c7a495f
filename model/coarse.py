"""Descriptors of ground: one vector for a template of a query image, one for each square of a city's map.

They let a search look first at squares whose vectors are near the query's. Both heads are convolutions over
features of the stride at which cities are searched: over templates, which lie on the ground, north up, and
over the map. So an unknown heading is a vector for each heading.
"""

import torch
import torch.nn.functional as F
from torch import nn

SQUARE = 4  # cells on a side: two convolutions of stride 2
DIMENSIONS = 64
_CHANNELS = 48, 64
_START = 20.0  # of the scale of products


class CoarseHeads(nn.Module):
    """The descriptors of query and map.

    channels: of the features; side: of the templates, in cells.
    """

    def __init__(self, channels, side):
        super().__init__()
        self.channels, self.side = channels, side
        middle = -(-(side - 1) // SQUARE)
        self.seen = SQUARE * middle + 3  # cells on a side that a vector depends on, the template and a rim
        self.query, self.satellite = (self._layers(channels, middle) for _ in range(2))
        self.log_scale = nn.Parameter(torch.tensor(_START).log())

    @property
    def before(self):
        """Cells that are seen north and west of a square."""
        return (self.seen - SQUARE) // 2

    @staticmethod
    def _layers(channels, middle):
        first, second = _CHANNELS
        layers = [nn.Conv2d(channels, first, 3, 2), nn.ReLU(), nn.Conv2d(first, second, 3, 2), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(second, DIMENSIONS, middle))

    def describe_query(self, templates):
        """(B, DIMENSIONS), of unit length, of templates (B, C, n, n)."""
        spare = self.seen - templates.shape[-1]
        size = templates.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        padded = F.pad(templates / size, (spare // 2, spare - spare // 2) * 2)
        return F.normalize(self.query(padded).flatten(1), dim=1)

    def describe_map(self, features):
        """(B, DIMENSIONS, h, w), of unit length, of features (B, C, SQUARE h + seen - SQUARE, ...).

        Square (i, j) is the SQUARE x SQUARE cells that begin `before` + SQUARE (i, j) cells from the corner.
        """
        return F.normalize(self.satellite(features * features.shape[1] ** 0.5), dim=1)
