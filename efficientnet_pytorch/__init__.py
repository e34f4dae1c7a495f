"""EfficientNet-B0 with multi-scale features, as both branches of the network use it."""

from efficientnet_pytorch.model import FEATURE_CHANNELS, FEATURE_STRIDES, EfficientNet
from efficientnet_pytorch.utils import BackboneWeightsError, load_backbone_weights

__all__ = ["FEATURE_CHANNELS", "FEATURE_STRIDES", "BackboneWeightsError", "EfficientNet", "load_backbone_weights"]
