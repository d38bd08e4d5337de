"""How far a task is, and how long it will take."""

# A line at least every so many seconds.
SECONDS = 10


def silent(*_, **__):
    """Says nothing, in the place of `print`."""


def progress_bar(total, verbose, unit="image"):
    """Returns what `update(done)` tells how far a task is.

    Args:
        total: Integer, how much there is to do, or `None`.
        verbose: `"auto"`, 0, 1 or 2, as in Keras. Or an object whose
            `part(total)` counts this task along with others.
        unit: String, what is counted.
    """
    if hasattr(verbose, "part"):
        return verbose.part(total)
    import keras  # The command line tells of time before Keras is there.

    return keras.utils.Progbar(
        total, verbose=1 if verbose == "auto" else verbose, unit_name=unit
    )


def in_words(seconds):
    """A time as a person says it, such as "3 minutes"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
