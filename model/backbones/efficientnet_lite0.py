"""EfficientNet-Lite0 down to stride 8, the light network's backbone."""

from efficientnet_pytorch.lite import LAST_BLOCKS, LITE_CHANNELS, EfficientNetLite0
from model.backbones.interface import BackboneInterface


class Lite0(EfficientNetLite0, BackboneInterface):
    """EfficientNet-Lite0's stem and first five blocks."""

    channels = LITE_CHANNELS
    shift = -1
    blocks_until = {stride: number for number, stride in LAST_BLOCKS.items()}


BACKBONE = Lite0
