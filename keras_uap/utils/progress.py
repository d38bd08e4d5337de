"""Progress of long tasks: a line about every ten seconds, or Keras' bar."""

import time

# Seconds between two lines.
SECONDS = 10


def silent(*_, **__):
    """Prints nothing, in the place of `print`."""


class Progress:
    """Prints a line about every ten seconds, with the time left.

    It may be passed as `verbose` to what shows a progress bar, and then counts
    all these tasks as one.

    Args:
        unit: String, what is counted.
        total: Integer, the number of units, or `None`.
        write: Function that prints a line, such as `print` or `silent`.
    """

    def __init__(self, unit, total=None, write=print):
        self._unit = unit
        self._total = total
        self._write = write
        self._done = self._before = 0
        self._first = None
        self._written = self._updated = time.monotonic()

    def part(self, total):
        """Returns the progress of one more task, with `update(done)`."""
        self._before = self._done
        if time.monotonic() - self._updated > SECONDS:
            # Other work went on, which has printed its own lines.
            self._written = time.monotonic()
        return self

    def update(self, done, text=None):
        """Prints a line if ten seconds have passed since the last one.

        Args:
            done: Integer, the units of this task that are done.
            text: String to print, or `None` for "done of total units".
        """
        self._done = self._before + done
        self._updated = time.monotonic()
        if self._first is None:
            # The first step traces the graph and takes longer than others.
            self._first = self._updated, self._done
        if self._updated - self._written > SECONDS:
            if text is None:
                of = "" if self._total is None else f" of {self._total:,}"
                text = f"{self._done:,}{of} {self._unit}"
            self._written = self._updated
            self._write(f"    {text}{self.left()}", flush=True)

    def add(self, count):
        """Counts so many units more, as `keras.utils.Progbar.add` does."""
        self.update(self._done - self._before + count)

    def left(self):
        """The time left, to end a line with; empty where it is not known."""
        begun, before = self._first or (0, 0)
        if not before < self._done < (self._total or 0):
            return ""
        each = (time.monotonic() - begun) / (self._done - before)
        return f"; {in_words(each * (self._total - self._done))} left"


def progress_bar(total, verbose, unit="image"):
    """Returns an object whose `update(done)` shows the progress of a task.

    Args:
        total: Integer, the number of units, or `None`.
        verbose: `"auto"`, 0, 1 or 2, as in Keras. Or a `Progress` that counts
            this task together with others.
        unit: String, what is counted.
    """
    if hasattr(verbose, "part"):
        return verbose.part(total)
    import keras  # The command line prints times before Keras is loaded.

    verbose = 1 if verbose == "auto" else verbose
    return keras.utils.Progbar(total, verbose=verbose, unit_name=unit)


def in_words(seconds):
    """A duration in words, such as "3 minutes"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
