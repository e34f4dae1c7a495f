"""What a network looked at in a pair -> figures."""

import numpy as np

from dataset.augment import cut
from engine.figures.attention import ground_plane_figure, layers_figure, overview_figure
from engine.inference.predictor import make_inputs
from engine.visualization import explain


def attention_figures(samples, i, heads=()):
    """{what it shows: figure} of pair i of `Samples`. heads: attention heads with a sheet of their own."""
    checkpoint, view = samples.checkpoint, samples.predictor.view
    network, settings = checkpoint.network, checkpoint.settings
    sample = samples.dataset[i]
    prediction, (one,) = samples.estimates([sample], return_attention=True)
    batch = cut(samples.batch([sample]), view)
    inputs, views = make_inputs(batch, view), samples.views(i, sample)
    branches = network.panorama_backbone, network.satellite_backbone
    cams = [explain.grad_cam(network, inputs, branch.last_layer, one.position) for branch in branches]
    height = inputs.query.shape[-2]
    top = network.rows_cut(inputs.camera, height)  # which the branch does not see
    cams[0] = np.pad(cams[0], ((round(len(cams[0]) * top / (height - top)), 0), (0, 0)))
    title = f"{samples.list_name} {i}" + (f": error {one.error}" if one.truth else "")
    figures = {}
    if prediction.attention is None:
        says = "no cross-attention; what it compares is in the picture of the ground"
        words = f"{title}\n{settings.network} network: {says}"
        figures["overview"] = overview_figure(views, one, cams, None, title=words)
    else:
        anchors = settings.vert_anchors, settings.horz_anchors
        assumed = " (assumed)" if "num_heads" in checkpoint.assumed else ""
        sheets = [("layers", None, f"mean over {settings.num_heads} heads{assumed}")]
        sheets += [(f"layers_head{head:02d}", head, f"head {head}") for head in heads]
        for name, head, words in sheets:
            how = anchors, one.position, settings.satellite_size, head
            layers = [explain.attention_maps(layer, *how) for layer in prediction.attention]
            if head is None:
                last = f"{title}\nattention of the last of {len(layers)} layers, {words}"
                figures["overview"] = overview_figure(views, one, cams, layers[-1], title=last)
            figures[name] = layers_figure(views, one, layers, title=f"{title}\nattention, {words}")
    if prediction.templates is not None:
        laid_out, template, maps = explain.ground_plane_panels(network.matching, prediction, batch, one)
        how = {"radius": settings.matching_radius, "title": title}
        figures["ground_plane"] = ground_plane_figure(laid_out, views[1], template, maps, one, **how)
    return figures
