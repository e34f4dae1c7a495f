"""The interface of backbones."""

from torch import nn

from efficientnet_pytorch.utils import run_blocks
from efficientnet_pytorch.weights import load_backbone_weights

THESIS_DECODER = {32: (512, 640), 16: (320, 320), 8: (160, 160), 4: (80, 80), 2: (40, 40)}


class BackboneInterface(nn.Module):
    """Mixed into a module that gives features of an image from its `blocks`.

    channels: {stride: C} of the features.
    shift: of the features from the place of their index, in units of (stride - 1) / 2 pixels: 1 (right and
    down) with SAME padding, -1 with even padding.
    blocks_until: {stride: how many of `blocks` lead to its features}.
    decoder_channels: {stride: (out of the upsampling, out of the stage)} of the thesis's decoder.
    """

    channels: dict
    shift: int
    blocks_until: dict
    decoder_channels = THESIS_DECODER
    frozen = False

    def forward(self, image, mix_style=None):
        """Features {stride: (B, C, h, w)}, sizes rounded up, of normalised images (B, 3, H, W).

        Each block leads to one stride; other backbones override this method. `mix_style` is a function
        applied to the features of strides 8 and 16, or None.
        """
        return run_blocks(self.blocks, image, dict(enumerate(self.channels, start=1)), mix_style)

    def freeze(self):
        """Keep the pretrained weights, and the statistics of their norms, as they are in training."""
        self.frozen = True
        self.pretrained.requires_grad_(False)

    def train(self, mode=True):
        """As in any module, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for module in self.pretrained.modules():
                module.training = False
        return self

    @property
    def pretrained(self):
        """The part that `load_public_weights` fills."""
        return self

    @property
    def strides(self):
        """The strides of the features, the finest first."""
        return tuple(sorted(self.channels))

    def keep_until(self, coarsest):
        """Drop the blocks behind the features of a stride, for networks that use no coarser ones."""
        self.channels = {stride: count for stride, count in self.channels.items() if stride <= coarsest}
        self.blocks = self.blocks[: self.blocks_until[coarsest]]

    @property
    def last_layer(self):
        """The module whose output Grad-CAM explains."""
        return self.blocks[-1]

    @property
    def circular(self):
        """Whether convolutions pad around the image's left and right edges."""
        return getattr(self, "_circular", False)

    @circular.setter
    def circular(self, wraps):
        if wraps != self.circular:
            self._circular = wraps
            for module in self.modules():
                if module is not self and hasattr(module, "circular"):
                    module.circular = wraps

    def load_public_weights(self, source):
        """Fill the backbone with public ImageNet weights: 'imagenet', 'none' or a file. Raises UserError."""
        load_backbone_weights(self, source)
