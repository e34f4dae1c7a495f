"""Numbers and values in sentences."""


def in_words(value):
    """A value, or several in a list, as a command line has them."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def counted(count, noun):
    """'1 pair', '2 pairs': a number and what it counts."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
