"""The thesis's network: two backbones -> transformer fusion -> decoder -> one logit per pixel."""

from functools import partial

from torch import nn

from common.errors import UserError
from model.decoder import Decoder
from model.fusion import TransformerFusionBlock
from model.interface import Prediction, resize
from model.matcher import Matcher
from model.matching.ground_plane import FINEST, STRIDES, GroundPlaneMatching
from model.matching.published import PublishedMatching


class CrossViewMatcher(Matcher):
    """Networks 'published' and 'ground_plane', which differ in matching, on strides 2, 4, 8, 16 and 32."""

    def __init__(self, settings):
        super().__init__(settings)
        backbone, d_model = self.panorama_backbone, settings.d_model
        if missing := sorted({2, *STRIDES} - {*backbone.channels}):
            way_out = "choose another --backbone, or --network light"
            strides = ", ".join(map(str, missing))
            raise UserError(f"backbone {settings.backbone}: no features of stride {strides}; {way_out}")
        self.adapt_panorama = nn.Conv2d(backbone.channels[32], d_model, 1)
        self.adapt_satellite = nn.Conv2d(backbone.channels[32], d_model, 1)
        anchors, layers = (settings.vert_anchors, settings.horz_anchors), settings.n_layer
        self.fusion = TransformerFusionBlock(d_model, anchors, layers, settings.num_heads, settings.block_exp)
        if settings.network == "published":
            stage_channels = {stride: up for stride, (up, _) in backbone.decoder_channels.items()}
            self.matching = PublishedMatching(backbone.channels, stage_channels)
        else:
            self.matching = GroundPlaneMatching(backbone.channels, settings, backbone.shift)
        self.tilt = self.make_tilt_head()
        self.decoder = Decoder(d_model, backbone, settings.dropout_rate, settings.use_mask)
        if self.matching.has_templates:  # at first, the finest matching map alone makes the logits
            nn.init.zeros_(self.decoder.head[-1].weight)
            nn.init.zeros_(self.decoder.head[-1].bias)

    def forward(self, inputs, pairs=None):
        """A `Prediction` for `Inputs`; satellite images have 32 pixels for each anchor.

        Raises ValueError for a size that does not fit and for a missing input.
        """
        self.check(inputs, pairs)
        query, satellite, camera, top, inputs = self.features(inputs, pairs)
        tokens = self.adapt_panorama(query[32]), self.adapt_satellite(satellite[32])
        fused, attention = self.fusion(*tokens, inputs.return_attention)
        if self.matching.has_templates:
            hypotheses = self.hypotheses_of(inputs)
            size = tuple(inputs.query.shape[-2:])
            found = self.matching(query, satellite, inputs.metres_per_pixel, camera, hypotheses, size, top)
            match = partial(_resized_map, found.maps)
        else:
            found, match = Prediction(logits=None, camera=camera), partial(self.matching, query)
        logits = self.decoder(fused, satellite, inputs.mask, match)
        if found.maps is not None:  # the decoder refines the finest map
            logits = logits + resize(found.maps[FINEST], logits.shape[-2:]).squeeze(1)
        return found._replace(logits=logits, attention=attention)


def _resized_map(maps, stride, activation):
    return resize(maps[max(stride, FINEST)], activation.shape[-2:])
