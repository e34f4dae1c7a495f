"""How far a photograph's camera was truly tilted.

A small head that sees where the horizon lies and corrects the prior.
"""

import torch
import torch.nn.functional as F
from torch import nn

STRIDE = 8  # of the features
CHANNELS = 32
UNDISTORT_STEPS = 4  # approximate directions suffice here, and a fixed number exports to ONNX
_UNIT_DEG = 10.0  # of angles inside the head


class TiltHead(nn.Module):
    """Estimates by how many degrees pitch and roll differ from a photograph's prior camera. It starts at
    zero.

    It sees the features and where each cell looks if the prior is right: walls that lean, and ground that
    begins too low. The features are averaged over the image and, weighted by bearing, as they grow to the
    right, which a roll changes; so photographs may have any size.

    in_channels: of the features.
    shift: which way features lie from where their index says, as of a backbone.
    """

    def __init__(self, in_channels, shift):
        super().__init__()
        self.shift = shift * (STRIDE - 1) / (2 * STRIDE)
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
        """The cameras with pitch and roll as estimated.

        features: (B, C, h, w) of photographs.
        camera: their prior, a `Pinhole` batch.
        """
        h, w = features.shape[-2:]
        y = (torch.arange(h, device=features.device) + 0.5 + self.shift) / h
        x = (torch.arange(w, device=features.device) + 0.5 + self.shift) / w
        y, x = (at.expand(len(camera), h, w) for at in torch.meshgrid(y, x, indexing="ij"))
        bearing_depression = torch.stack(camera.rays(x, y, UNDISTORT_STEPS), 1)
        looks = bearing_depression.to(features.dtype) / _UNIT_DEG
        seen = self.convolutions(torch.cat((features, looks), 1))
        bearing = F.interpolate(looks[:, :1], seen.shape[-2:], mode="bilinear", align_corners=False)
        seen = torch.cat((seen.mean((2, 3)), (seen * bearing).mean((2, 3))), 1)
        pitch, roll = (self.differences(seen).float() * _UNIT_DEG).unbind(1)
        return camera.replace(pitch=camera.pitch + pitch, roll=camera.roll + roll)
