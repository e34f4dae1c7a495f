"""The one kind of error that scripts turn into a line."""


class UserError(Exception):
    """Something that whoever runs a script can put right: a flag, a file, a folder, a device.

    Its message is one line that names the file or flag, the value that came and the way out.
    `common.flags.run_script` prints it; every other exception is a mistake of ours and keeps its traceback.
    """
