"""Self-distillation: the moving average of the weights, a teacher, and what it knows better than its student.

The teacher sees a pair as it is, the student the same pair with a part of the bearings and other colours.
Both views have moved as one (`dataset.augment.move`), so that the teacher's map is the student's target.
"""

import torch

from engine.inference.decode import NEAR_M, locate, mass_within, probability_map
from engine.inference.predictor import make_inputs
from loss.heatmap import distillation

SURE = 0.5  # least probability within `NEAR_M` of its answer at which a teacher is believed


class Teacher:
    """Gives targets of a student. network: the moving average. view: how pairs are seen, a `View`.

    temperature: calibrates the teacher's heat maps, for the choice of pairs to learn from.
    """

    def __init__(self, network, view, temperature):
        self.network, self.view, self.temperature = network, view, temperature
        self.trained = network.settings.temperature

    def losses(self, batch, logits, weight):
        """{'distill_loss': times `weight`, 'distilled': share of the pairs that the teacher is sure of}.

        batch: moved, on its device, not yet cut or recoloured. logits: (B, S, S), the student's.
        """
        with torch.no_grad():
            found = self.network(make_inputs(batch, self.view)).logits.float()
            probability = probability_map(found, self.temperature)
            reach = NEAR_M / batch["metres_per_pixel"]
            kept = (mass_within(probability, locate(found, self.trained), reach) >= SURE).float()
        loss = weight * distillation(logits, found, self.trained, kept)
        return {"distill_loss": loss, "distilled": kept.mean()}
