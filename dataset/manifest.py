"""How a folder says by what settings it was made, and whether that is complete: a JSON file, in caches and in mini-VIGOR."""

import json

from common.errors import UserError
from common.files import write_bytes


def write_manifest(path, settings, complete):
    """Write the settings, first when the work begins and again, as complete, when it is done."""
    write_bytes(path, (json.dumps({**settings, "complete": complete}, indent=2) + "\n").encode())


def read_manifest(path, what):
    """The settings in a manifest of `what`, such as 'a cache', or None where there is none. Raises UserError for other files."""
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if isinstance(manifest, dict):
            return manifest
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name another folder") from None
    except ValueError:
        pass
    raise UserError(f"{path}: not the manifest of {what}; remove the folder {path.parent} and make it again")


def read_own_manifest(path, what, settings):
    """The manifest of a folder that is to be made by these settings, or {} where nothing was begun yet.

    settings: {name: value}; None: as usual, and not in the manifest. Raises UserError for a folder that holds something
    else, or `what` by other settings.
    """
    folder, manifest = path.parent, read_manifest(path, what)
    if manifest is None:
        # a first start that was cut off leaves at most hidden files: its lock, and the beginning of its manifest
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UserError(f"{folder}: this folder holds something else than {what}; name an empty or a new one")
        return {}
    said = {name: (manifest.get(name), value) for name, value in settings.items()}
    differing = [f"{name} {_in_words(theirs)}, not {_in_words(ours)}" for name, (theirs, ours) in said.items() if theirs != ours]
    if differing:
        raise UserError(f"{folder}: holds {what} of {'; '.join(differing)}; name another folder or remove this one")
    return manifest


def _in_words(value):
    return "as usual" if value is None else value
