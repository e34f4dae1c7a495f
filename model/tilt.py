"""The tilt head, which corrects the prior pitch and roll of a photograph's camera."""

import torch
import torch.nn.functional as F
from torch import nn

STRIDE = 8  # of the features
CHANNELS = 32
UNDISTORT_STEPS = 4  # approximate directions suffice here, and a fixed number exports to ONNX
_UNIT_DEG = 10.0  # of angles inside the head


class TiltHead(nn.Module):
    """Estimates by how many degrees pitch and roll differ from a photograph's prior camera, at first by zero.

    Its inputs are the features and each cell's direction by the prior camera: leaning walls and a low horizon
    show an error. The features are averaged over the image, once evenly and once weighted by bearing, which a
    roll changes, so photographs may have any size. shift: of the features, as in a backbone.
    """

    def __init__(self, in_channels, shift):
        super().__init__()
        self.shift = shift * (STRIDE - 1) / (2 * STRIDE)
        layers = []
        for channels, stride in ((in_channels + 2, 1), (CHANNELS, 2), (CHANNELS, 2)):
            layers += [nn.Conv2d(channels, CHANNELS, 3, stride, padding=1), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        self.differences = nn.Linear(2 * CHANNELS, 2)
        nn.init.zeros_(self.differences.weight)
        nn.init.zeros_(self.differences.bias)

    def forward(self, features, camera):
        """The cameras of a prior `Pinhole` batch, with tilts as estimated from features (B, C, h, w)."""
        h, w = features.shape[-2:]
        y = (torch.arange(h, device=features.device) + 0.5 + self.shift) / h
        x = (torch.arange(w, device=features.device) + 0.5 + self.shift) / w
        y, x = (at.expand(features.shape[0], h, w) for at in torch.meshgrid(y, x, indexing="ij"))
        bearing_depression = torch.stack(camera.rays(x, y, UNDISTORT_STEPS), 1)
        looks = bearing_depression.to(features.dtype) / _UNIT_DEG
        seen = self.convolutions(torch.cat((features, looks), 1))
        bearing = F.interpolate(looks[:, :1], seen.shape[-2:], mode="bilinear", align_corners=False)
        seen = torch.cat((seen.mean((2, 3)), (seen * bearing).mean((2, 3))), 1)
        pitch, roll = (self.differences(seen).float() * _UNIT_DEG).unbind(1)
        return camera.replace(pitch=camera.pitch + pitch, roll=camera.roll + roll)
