"""Test-time augmentation: predictions averaged over eight forms of a pair that show the same world.

The world is mirrored east to west and turned by quarters. Both views follow without resampling: satellite
pixels by flips and quarter turns, panorama columns by flips and rolls. A photograph is mirrored, and its
prior heading turns.
"""

import torch
from torch import nn

from common.view import FORMS

_FORMS = tuple((mirror, quarters) for mirror in (False, True) for quarters in range(4))[1:]


class EightForms(nn.Module):
    """A network whose logits and scores are means over eight forms; other outputs are of the pair itself."""

    def __init__(self, network):
        super().__init__()
        self.network, self.training = network, network.training

    def forward(self, inputs, pairs=None):
        """A `Prediction` for `Inputs`, as in any network."""
        plain = self.network(inputs, pairs)
        sums, maps_of_forms = {"logits": plain.logits.float()}, [plain.logits.float()]
        for name in ("heading_scores", "height_scores"):
            if getattr(plain, name) is not None:
                sums[name] = getattr(plain, name)
        for mirror, quarters in _FORMS:
            other = self.network(_changed(inputs, mirror, quarters), pairs)
            for name in sums:
                maps = _back(getattr(other, name).to(sums[name].dtype), mirror, quarters)
                if name == "heading_scores" and mirror:
                    maps = maps[:, _opposite(plain.headings)]
                sums[name] = sums[name] + maps
                if name == "logits":
                    maps_of_forms.append(maps)
        disagreement = _divergence(maps_of_forms, self.network.settings.temperature)
        means = {name: total / FORMS for name, total in sums.items()}
        return plain._replace(**means, disagreement=disagreement)


def _divergence(logits, temperature):
    """The Jensen-Shannon divergence (P,) in nats between heat maps, a list of their logits (P, H, W)."""
    logs = [(x.flatten(1) / temperature).log_softmax(1) for x in logits]
    entropies = [-(log.exp() * log).sum(1) for log in logs]
    mean = sum(log.exp() for log in logs) / len(logs)
    return -torch.special.xlogy(mean, mean).sum(1) - sum(entropies) / len(logs)


def _changed(inputs, mirror, quarters):
    """The world mirrored east to west, then turned clockwise by quarters; headings relative to it stay."""
    query, camera = inputs.query, inputs.camera
    if mirror:
        query, camera = query.flip(-1), camera.mirrored()
    if camera.wraps:
        query = query.roll(quarters * query.shape[-1] // 4, -1)
    else:
        camera = camera.turned(90 * quarters)
    views = {"satellite": inputs.satellite, "mask": inputs.mask}
    for name, image in views.items():
        if image is not None:
            views[name] = (image.flip(-1) if mirror else image).rot90(-quarters, (-2, -1))
    return inputs._replace(query=query, camera=camera, **views)


def _back(maps, mirror, quarters):
    """Maps (..., h, w) of a changed world as maps of the world itself."""
    maps = maps.rot90(quarters, (-2, -1))
    return maps.flip(-1) if mirror else maps


def _opposite(headings):
    """For each heading (K,), the index of its mirror image."""
    apart = (headings[:, None] + headings + 180) % 360 - 180
    return apart.abs().argmin(1)
