"""The errors that scripts turn into a line."""

import os
import re
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"


class UserError(Exception):
    """Something that whoever runs a script can put right: a flag, a file, a folder, a device.

    Its message is one line that names the file or flag, the value that came and the way out.
    `common.flags.run_script` prints it; every other exception is a mistake of ours and keeps its traceback.
    """


def missing_package(error):
    """A line that names a package that is not installed and the command that installs its group.

    None for an error that is not a ModuleNotFoundError of a package listed under requirements/ by the name of
    its import.
    """
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not name or not isinstance(error, ImportError):
        return None
    for group in sorted(REQUIREMENTS.glob("*.txt")):
        if re.search(rf"^{name.replace('_', '[-_]')}\b(?!-)", group.read_text("utf-8"), re.M):
            command = f"{sys.executable} -m pip install -r {os.path.relpath(group)}"
            return f"the package {name} is not installed; this installs it: {command}"
    return None
