"""EfficientNet-Lite0, the backbone of the light network of size s."""

from efficientnet_pytorch.lite import EfficientNetLite
from model.backbones.interface import BackboneInterface


class Lite(EfficientNetLite, BackboneInterface):
    """A version of EfficientNet-Lite without its head."""

    shift = -1

    def __init__(self, coarsest, version=0):
        super().__init__(version, coarsest)


BACKBONE = Lite
