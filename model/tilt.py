"""How far a photograph's camera was truly tilted: a small head that sees where the horizon lies, and mends what is told."""

import torch
import torch.nn.functional as F
from torch import nn

from common.camera import Pinhole, tilted

STRIDE = 8  # of the features that are looked at
CHANNELS = 32
UNDISTORT_STEPS = 4  # a hint of where cells look; no step hangs on what a camera's numbers are, so that ONNX has it
_UNIT_DEG = 10.0  # of angles inside the head


class TiltHead(nn.Module):
    """Estimates by how many degrees pitch and roll differ from what is told of a photograph's camera. It starts at zero.

    It sees what stands where, and where each cell looks if what is told is true: walls that lean, and ground that begins too low.
    What it sees is averaged over the image, and as it grows to the right, which a roll does; so photographs may have any size.

    in_channels: of the features · shift: cells by which they lie further right and down than their index says.
    """

    def __init__(self, in_channels, shift):
        super().__init__()
        self.shift = shift
        self.convolutions = nn.Sequential(
            nn.Conv2d(in_channels + 2, CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )
        self.differences = nn.Linear(2 * CHANNELS, 2)
        nn.init.zeros_(self.differences.weight)
        nn.init.zeros_(self.differences.bias)

    def forward(self, features, camera):
        """The cameras (B, 12) as they are by the estimate.

        features: (B, C, h, w) of photographs · camera: (B, 12), as told.
        """
        h, w = features.shape[-2:]
        y = (torch.arange(h, device=features.device) + 0.5 + self.shift) / h
        x = (torch.arange(w, device=features.device) + 0.5 + self.shift) / w
        y, x = (at.expand(len(camera), h, w) for at in torch.meshgrid(y, x, indexing="ij"))
        bearing_depression = torch.stack(Pinhole(camera).rays(x, y, UNDISTORT_STEPS), 1)
        looks = bearing_depression.to(features.dtype) / _UNIT_DEG
        seen = self.convolutions(torch.cat((features, looks), 1))
        bearing = F.interpolate(looks[:, :1], seen.shape[-2:], mode="bilinear", align_corners=False)
        seen = torch.cat((seen.mean((2, 3)), (seen * bearing).mean((2, 3))), 1)
        return tilted(camera, self.differences(seen).float() * _UNIT_DEG)
