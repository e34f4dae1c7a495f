"""The base of all networks: two branches, MixStyle, estimated tilts of cameras, and a check of inputs."""

from functools import partial

from torch import nn

from efficientnet_pytorch.channels import COARSEST
from model import tilt
from model.backbones import make_backbone
from model.mixstyle import MixStyle


class Matcher(nn.Module):
    """Base of all networks. `settings` holds its `NetworkSettings`; its inputs and outputs are those of
    `model.interface`.

    Subclasses have `matching`; its `has_templates` is True if the network projects queries onto the ground.
    """

    any_size = False  # whether satellite images may have other sizes than those of training
    crop_elevation = None  # degrees above the horizon at which panoramas are cropped; None: not at all

    def __init__(self, settings, coarsest=COARSEST):
        super().__init__()
        self.settings = settings
        self.panorama_backbone = make_backbone(settings.backbone, coarsest)
        self.satellite_backbone = make_backbone(settings.backbone, coarsest)
        self.tilt = None  # the `TiltHead` of a network that estimates how photographs were tilted
        style = MixStyle(settings.mixstyle_p, settings.mixstyle_alpha, settings.mixstyle_mix)
        self.mix_style = style if settings.use_mixstyle else None

    @property
    def backbones(self):
        """The backbones of both branches."""
        return self.panorama_backbone, self.satellite_backbone

    def make_tilt_head(self):
        """A `TiltHead` if the settings have one, else None."""
        if not self.settings.estimate_tilt:
            return None
        return tilt.TiltHead(self.panorama_backbone.channels[tilt.STRIDE], self.panorama_backbone.shift)

    def query_features(self, query, camera, city=None):
        """(features {stride: (B, C, h, w)}, cameras with estimated tilts, cropped rows) of query images."""
        top = self.rows_cut(camera, query.shape[-2])
        backbone, style = self.panorama_backbone, self.mix_style
        backbone.circular = camera.wraps and self.settings.circular_padding
        features = backbone(query[:, :, top:], style and partial(style, city=city))
        if self.tilt is not None and camera.kind == "photo":
            camera = self.tilt(features[tilt.STRIDE], camera)
        return features, camera, top

    def rows_cut(self, camera, height):
        """The number of rows at the top of a query image that the branch leaves out."""
        if self.crop_elevation is None or camera.kind == "photo":
            return 0
        coarsest = max(self.panorama_backbone.strides)
        return int(camera.rows_above(self.crop_elevation, height)) // coarsest * coarsest

    def features(self, inputs, pairs):
        """(query features, satellite features, camera, cropped rows, inputs) of the P pairs."""
        city = inputs.city
        query, camera, top = self.query_features(inputs.query, inputs.camera, city)
        if city is not None and len(inputs.satellite) > len(inputs.query):
            city = city.repeat_interleave(len(inputs.satellite) // len(inputs.query))
        style = self.mix_style and partial(self.mix_style, city=city)
        satellite = self.satellite_backbone(inputs.satellite, style)
        if not self.settings.use_mask:
            inputs = inputs._replace(mask=None)
        if pairs is None:
            return query, satellite, camera, top, inputs
        of_query, of_satellite = pairs.unbind(1)
        query = {stride: x[of_query] for stride, x in query.items()}
        satellite = {stride: x[of_satellite] for stride, x in satellite.items()}
        given = {name: getattr(inputs, name) for name in ("mask", "metres_per_pixel")}
        given = {name: x[of_satellite] for name, x in given.items() if x is not None}
        return query, satellite, camera[of_query], top, inputs._replace(**given)

    def hypotheses(self, heading_noise=0.0, camera_height=None, usual_height=False):
        """The `Hypotheses` of `matching`; None for a network without templates."""
        if not self.matching.has_templates:
            return None
        return self.matching.hypotheses(heading_noise, camera_height, usual_height)

    def hypotheses_of(self, inputs):
        """The `Hypotheses` for some `Inputs`. In training all heights are equally likely."""
        usual_height = inputs.usual_height and not self.training
        return self.hypotheses(inputs.heading_noise, inputs.camera_height, usual_height)

    def encode_query(self, query, camera, metres_per_pixel, stride, hypotheses):
        """Templates (B, C, K, n, n) of one stride, to `correlate` with `encode_satellite`'s features.

        query, camera: as in `Inputs`. metres_per_pixel: (B,), of the satellite images.
        """
        features, camera, top = self.query_features(query, camera)
        adapted = self.matching.adapt("panorama", features)[stride]
        size = tuple(query.shape[-2:])
        return self.matching.template(stride, adapted, metres_per_pixel, camera, hypotheses, size, top)

    def encode_satellite(self, satellite, stride):
        """Features (B, C, h, w) of one stride, of unit length, of normalised satellite images."""
        return self.matching.adapt("satellite", self.satellite_backbone(satellite, None))[stride]

    def check(self, inputs, pairs=None):
        """Raises ValueError for a missing input or a shape that does not fit the others or the settings."""
        settings, B = self.settings, inputs.query.shape[0]  # len() would fix the batch of an exported network
        if settings.use_mask and inputs.mask is None:
            raise ValueError("mask: none given, but this network was built with use_mask True")
        cameras = inputs.camera.values.shape[0]
        if cameras != B:
            raise ValueError(f"camera: {cameras} cameras, expected {B}, one for each query image")
        size = tuple(inputs.satellite.shape[-2:]) if self.any_size else (settings.satellite_size,) * 2
        images = B if pairs is None else inputs.satellite.shape[0]
        expected = {"query": (B, 3, *inputs.query.shape[-2:]), "satellite": (images, 3, *size)}
        if settings.use_mask:
            expected["mask"] = (images, 1, *size)
        for name, shape in expected.items():
            tensor = getattr(inputs, name)
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {shape}")
