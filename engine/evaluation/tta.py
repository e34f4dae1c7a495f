"""Test-time augmentation: one pair looked at in eight forms that show the same world, and their answers averaged.

A world mirrored east to west, or turned by a quarter, is as good a world: both views follow without resampling, satellite pixels
by flips and quarter turns, panorama columns by flips and rolls; a photograph is mirrored, and for a turn its told heading turns.
What a network says of a place by chance changes from form to form; what it says because both views show the same does not.
"""

from common.camera import mirrored, turned
from common.errors import UserError
from engine.batch import forward

FORMS = 8  # mirrored or not, times four quarter turns


def answer(model, batch, **options):
    """The network's result for a batch on its device; where `model.tta` is 8, logits and scores are means over forms.

    options: go to the network's forward.

    What is left of the result (templates, maps) is of the pair as it is.
    """
    result = forward(model, batch, **options)
    if getattr(model, "tta", 1) == 1:
        return result
    logits = result.logits.float()
    scores, heights = result.heading_scores, result.height_scores
    for mirror in (False, True):
        for quarters in range(4):
            if not mirror and not quarters:
                continue
            other = forward(model, _turned(batch, mirror, quarters), **options)
            logits = logits + _back(other.logits.float(), mirror, quarters)
            if scores is not None:
                seen = _back(other.heading_scores, mirror, quarters)
                scores = scores + (seen[:, _opposite(result.headings)] if mirror else seen)
            if heights is not None:
                heights = heights + _back(other.height_scores, mirror, quarters)
    means = {"heading_scores": scores, "height_scores": heights}
    return result._replace(logits=logits / FORMS, **{name: x if x is None else x / FORMS for name, x in means.items()})


def check_view(settings, tta):
    """Raises UserError where a network's view cannot be turned by quarters."""
    if tta > 1 and settings.FoV < 360:
        raise UserError(f"--tta {tta}: it turns whole panoramas, but this view is {settings.FoV:g}° wide; use --tta 1")


def _turned(batch, mirror, quarters):
    """The same world mirrored east to west, then turned clockwise by quarters; headings relative to it stay."""
    panorama = batch["panorama"].flip(-1) if mirror else batch["panorama"]
    if "camera" in batch:
        told = mirrored(batch["camera"]) if mirror else batch["camera"]
        changed = {"panorama": panorama, "camera": turned(told, 90 * quarters)}
    else:
        changed = {"panorama": panorama.roll(quarters * panorama.shape[-1] // 4, -1)}
    for name in ("satellite", "mask"):
        if name in batch:
            image = batch[name].flip(-1) if mirror else batch[name]
            changed[name] = image.rot90(-quarters, (-2, -1))
    return batch | changed


def _back(maps, mirror, quarters):
    """Maps (..., h, w) of a changed world as maps of the world itself."""
    maps = maps.rot90(quarters, (-2, -1))
    return maps.flip(-1) if mirror else maps


def _opposite(headings):
    """For each heading (K,) the index of the one that it has in a mirrored world."""
    apart = (headings[:, None] + headings + 180) % 360 - 180
    return apart.abs().argmin(1)
