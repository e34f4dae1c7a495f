"""Numbers, values and names in sentences."""

import re


def in_words(value):
    """A value, or several in a list, as they are written on a command line."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def counted(count, noun):
    """'1 pair', '2 pairs': a number and what it counts."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def renamed(text, names):
    """A message in which each `--flag` that `names` contains is replaced by its entry."""
    return re.sub(r"--(\w+)", lambda flag: names.get(flag[1], flag[0]), text)
