"""EfficientNet-Lite0 down to stride 8, the light network's backbone."""

from efficientnet_pytorch.lite import LITE_CHANNELS, EfficientNetLite0
from model.backbones.interface import BackboneInterface


class Backbone(EfficientNetLite0, BackboneInterface):
    """EfficientNet-Lite0's stem and first five blocks."""

    channels = LITE_CHANNELS
    shift = -1
