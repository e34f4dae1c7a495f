"""Self-distillation from the moving average of the weights.

The teacher sees whole panoramas, the student some of their bearings in changed colours. Both see the pair
after `dataset.augment.move`, so the teacher's heat map is a target for the student.
"""

import torch

from engine.inference.decode import NEAR_M, locate, mass_within, probability_map
from engine.inference.predictor import make_inputs
from loss.heatmap import distillation

SURE = 0.5  # least probability within `NEAR_M` of the teacher's answer for a pair to count


class Teacher:
    """Makes targets for a student. network: the moving average. view: the `View` of the pairs.

    temperature: calibrates the teacher's heat maps, by which pairs are selected.
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
