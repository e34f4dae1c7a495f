"""Backbones by name. To add one, add a file to this folder: its name becomes a value of --backbone, and its
`BACKBONE`, given the coarsest stride, makes a backbone with the interface of `model.backbones.interface`.

A file is imported when its backbone is built.
Names that begin with `timm:` are models of timm.
"""

import importlib
import pkgutil

from common.settings import Check
from efficientnet_pytorch.channels import COARSEST

TIMM = "timm:"
_PARTS = ("interface", "of_timm")
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _PARTS))


def _is_name(value):
    return isinstance(value, str) and (value in NAMES or value.removeprefix(TIMM) not in ("", value))


NAME = Check(
    f"one of {', '.join(NAMES)}, or {TIMM} and the name of one of timm's models", _is_name, unit="NAME"
)


def make_backbone(name, coarsest=COARSEST):
    """A new backbone of a name, with random weights, down to features of a stride.

    Raises UserError for a model that timm does not have.
    """
    if name.startswith(TIMM):
        return importlib.import_module(f"{__name__}.of_timm").TimmBackbone(name.removeprefix(TIMM), coarsest)
    return importlib.import_module(f"{__name__}.{name}").BACKBONE(coarsest)
