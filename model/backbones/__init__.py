"""Backbones by name. To add one, add a file to this folder: its name is the flag's, its class is `BACKBONE`.

`model.backbones.interface` says what such a class offers. A file is imported when its backbone is built.
"""

import importlib
import pkgutil

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "interface"))


def make_backbone(name):
    """A new backbone of a name, with random weights."""
    return importlib.import_module(f"{__name__}.{name}").BACKBONE()
