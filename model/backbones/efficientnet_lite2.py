"""EfficientNet-Lite2."""

from functools import partial

from model.backbones.efficientnet_lite0 import Lite

BACKBONE = partial(Lite, version=2)
