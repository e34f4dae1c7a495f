"""When a training run does what: its learning rate at a step, its warm-up, its validations."""

import math

from common.flags import NOT_NEGATIVE, Check


def _is_duration(value):
    try:
        return NOT_NEGATIVE.allows(float(value.removesuffix("steps")))
    except (ValueError, AttributeError):
        return False


DURATION = Check("a number of epochs, or of steps: 0.5 or 500steps", _is_duration)


def steps_of(duration, steps):
    """A DURATION in steps, where an epoch has `steps`."""
    return int(duration.removesuffix("steps")) if duration.endswith("steps") else round(float(duration) * steps)


def cosine_learning_rate(step, total_steps, base, minimum=1e-6, warmup_steps=0):
    """The learning rate of a step: a linear warm-up to `base`, then half a cosine down to `minimum` at the last step.

    A function of the step alone, so that resuming needs no scheduler's state.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return minimum + (base - minimum) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def validation_is_due(epoch, epochs, every=None):
    """Whether to validate after this epoch (counted from 1); always after the last.

    every: epochs; None stands for every third up to the 30th, then every one.
    """
    return epoch == epochs or epoch % (every or (3 if epoch <= 30 else 1)) == 0
