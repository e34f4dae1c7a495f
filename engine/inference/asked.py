"""The conditions of a command: view and pairs of a network's training, changed by the given flags."""

from dataclasses import replace

from common.errors import UserError
from common.view import FORMS, View
from common.words import in_words
from dataset.protocol import Lists, Protocol, check_cities
from dataset.roots import find_root
from dataset.sets import NO_LABELS
from model.checkpoint import PRETRAINED

# The defaults that the help shows for flags made from settings.
AS_TRAINED = dict.fromkeys({*Lists.names(), *View.names()} - {"pos_only"}, "as trained")
_OF_PHOTOGRAPHS = ("hfov", "pitch", "roll", "tilt_noise", "aspect", "photo_width")
_OF_PANORAMAS = ("FoV", "vertical")
_OF_TRAINING = ("camera", "satellite_size", "panorama_size")


def asked_view(checkpoint, given, of_set=None):
    """The `View` for a `Checkpoint`: that of its training, changed by `given`, the flags.

    of_set: the data set's own defaults, from `dataset.sets.view_of_set`; flags overrule them.

    Raises UserError for a setting that does not apply: one of photographs for a network for panoramas or the
    reverse, another camera or other sizes than in training, a camera height that is not used.
    """
    given, trained, file = View.given(given), checkpoint.view, checkpoint.file
    others, kind = (_OF_PANORAMAS, "photographs") if trained.photographs else (_OF_PHOTOGRAPHS, "panoramas")
    view = trained if trained.photographs else replace(trained, **(of_set or {}))
    view = replace(view, **{name: value for name, value in given.items() if name not in others})
    for name, value in given.items():
        flag = f"--{name} {in_words(value)}"
        if name in others:
            raise UserError(f"{flag}: {file} is a network for {kind}, to which it does not apply")
        if name in _OF_TRAINING and getattr(view, name) != getattr(trained, name):
            fixed = in_words(getattr(trained, name))
            raise UserError(f"{flag}: {file} was trained with {fixed}, which cannot be changed")
    if "camera_height" in given and not checkpoint.network.matching.has_templates:
        says = "does not use camera heights; the networks light and ground_plane do"
        raise UserError(f"--camera_height: {file} {says}")
    return view


def with_forms(checkpoint, view, given):
    """The `View`, averaged over eight forms for the repository's networks unless `given` sets `tta`.

    Panoramas cut to a field of view cannot be turned, so they have one form.
    """
    if "tta" in given or view.FoV < 360 or checkpoint.file not in PRETRAINED.values():
        return view
    return replace(view, tta=FORMS)


def asked_protocol(checkpoint, given, source=None):
    """The `Protocol` of an evaluation: the test list of a `Checkpoint`'s training, changed by `given`.

    source: has to have the cities that are given. Raises UserError.
    """
    if given.get("labels") == NO_LABELS:
        raise UserError("--labels none is for training; an evaluation needs labels")
    if source and (given.get("train_cities") or given.get("test_cities")):
        check_cities(find_root(source.dataset_root), given)
    return Protocol.pick(checkpoint.data, {"pos_only": True}, given)
