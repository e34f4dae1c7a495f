"""EfficientNet-B0, the thesis's backbone: strides 2 to 32."""

from efficientnet_pytorch.channels import FEATURE_CHANNELS, LAST_BLOCKS
from efficientnet_pytorch.model import EfficientNet
from model.backbones.interface import BackboneInterface


class EfficientNetB0(EfficientNet, BackboneInterface):
    """EfficientNet-B0 without its head."""

    channels = FEATURE_CHANNELS
    shift = 1
    blocks_until = {stride: number for number, stride in LAST_BLOCKS.items()}

    def __init__(self, coarsest):
        super().__init__()
        self.keep_until(coarsest)


BACKBONE = EfficientNetB0
