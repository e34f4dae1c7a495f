"""What EfficientNet-B0 gives, without the network, whose blocks come from torchvision."""

STEM_CHANNELS = 32
FEATURE_CHANNELS = {2: STEM_CHANNELS, 4: 24, 8: 40, 16: 112, 32: 320}  # of the features, by their stride
LAST_BLOCKS = {2: 4, 4: 8, 9: 16, 16: 32}  # number of a block whose output is a feature -> its stride
COARSEST = 32  # stride of features
STYLE_STRIDES = (8, 16)  # MixStyle acts on these
