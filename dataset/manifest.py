"""Manifests: a JSON file in a generated folder with the settings that made it, and whether it is complete."""

import json

from common.errors import UserError
from common.files import read_json, write_bytes


def write_manifest(path, settings, complete):
    """Write the settings: when the work begins, and again, as complete, when it is done."""
    text = json.dumps({**settings, "complete": complete}, indent=2) + "\n"
    write_bytes(path, text.encode(), durable=True)


def read_manifest(path, what):
    """The settings in the manifest of, for example, 'a cache', or None without one. Raises UserError."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name another folder") from None
    except ValueError:
        says = f"not the manifest of {what}; remove {path.parent} and make it again"
        raise UserError(f"{path}: {says}") from None


def read_own_manifest(path, what, settings):
    """The manifest of a folder that these settings make, or {} if the work has not begun.

    settings: {name: value}; None is the default and not in the manifest. Raises UserError for a folder that
    holds something else, or `what` with other settings.
    """
    folder, manifest = path.parent, read_manifest(path, what)
    if manifest is None:
        # an interrupted first start leaves hidden files at most: its lock and a temporary manifest
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            fault = f"this folder holds something else than {what}"
            raise UserError(f"{folder}: {fault}; name an empty or a new one")
        return {}
    both = [(name, manifest.get(name), value) for name, value in settings.items()]
    differing = [f"{name} {_words(held)}, not {_words(value)}" for name, held, value in both if held != value]
    if differing:
        fault = f"holds {what} made with {'; '.join(differing)}"
        raise UserError(f"{folder}: {fault}; name another folder or remove this one")
    return manifest


def _words(value):
    return "as usual" if value is None else value
