"""How far a task is, and how long it will take."""

import time

# A line at least every so many seconds.
SECONDS = 10


def silent(*_, **__):
    """Says nothing, in the place of `print`."""


class Lines:
    """Says how far a task is, in a line about every ten seconds.

    It may be passed for `verbose` to what shows a progress bar, and counts all
    that it is passed to together.

    Args:
        say: Function, such as `print` or `silent`.
        unit: String, what is counted.
        total: Integer, how much there is to do, or `None`.
    """

    def __init__(self, say, unit, total=None):
        self._say = say
        self._unit = unit
        self._of = "" if total is None else f" of {total:,}"
        self._done = self._before = 0
        self._told = self._updated = time.time()

    def part(self, total):
        """Returns what counts one task more, by `update(done)`."""
        self._before = self._done
        if time.time() - self._updated > SECONDS:
            # Other work went on, and was told of.
            self._told = time.time()
        return self

    def update(self, done):
        self._done = self._before + done
        self._updated = time.time()
        if self._updated - self._told > SECONDS:
            self._told = self._updated
            self._say(f"    {self._done:,}{self._of} {self._unit}", flush=True)


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
