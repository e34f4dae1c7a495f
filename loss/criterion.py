"""What training minimises: a network's result and a batch -> named losses."""

from loss.heading import heading_place_loss
from loss.heatmap import LOSSES, gaussian_target


class Criterion:
    """The loss of a name in LOSSES over the heat map and, where the network tells headings, that of heading and place.

    temperature: what the network's logits are divided by.
    """

    def __init__(self, name, temperature):
        self.location_loss, self.temperature = LOSSES[name], temperature

    def __call__(self, result, batch):
        """{'loss': what to minimise, and its parts by name}: scalar tensors.

        result: has `logits` (B, S, S), `heading_scores` (B, K, h, w) or None, and their `headings` (K,) in degrees, as the
        network's `MatchResult` · batch: has `position` (B, 2) in pixels of the satellite tensor and `heading` (B,) in degrees.
        """
        size = result.logits.shape[-1]
        target = gaussian_target(batch["position"], size)
        losses = {"location_loss": self.location_loss(result.logits, target, self.temperature)}
        if result.heading_scores is not None:
            scores = result.heading_scores, result.headings
            losses["heading_loss"] = heading_place_loss(*scores, batch["position"], batch["heading"], size)
        return {"loss": sum(losses.values()), **losses}
