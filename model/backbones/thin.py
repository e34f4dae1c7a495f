"""A few narrow layers with the strides of EfficientNet, for fast tests."""

from itertools import pairwise

from torch import nn

from common.errors import UserError
from efficientnet_pytorch.lite import ConvNorm
from model.backbones.interface import THESIS_DECODER, BackboneInterface

WIDTHS = {2: 16, 4: 24, 8: 40, 16: 48, 32: 64}


class ThinBackbone(BackboneInterface):
    """One convolution for each stride."""

    channels = WIDTHS
    shift = -1
    blocks_until = {stride: number for number, stride in enumerate(WIDTHS, 1)}
    decoder_channels = {stride: (up // 8, out // 8) for stride, (up, out) in THESIS_DECODER.items()}

    def __init__(self, coarsest):
        super().__init__()
        self.blocks = nn.ModuleList(ConvNorm(*pair, 3, 2) for pair in pairwise([3, *WIDTHS.values()]))
        self.keep_until(coarsest)

    def load_public_weights(self, source):
        """There are none: the weights stay random. Raises UserError for a file."""
        if source not in ("imagenet", "none"):
            raise UserError(f"--backbone_weights {source}: the thin backbone has no public weights")


BACKBONE = ThinBackbone
