"""What the commands say and write, and the mistakes that they tell of."""

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import time

from keras_uap.utils.progress import SECONDS, in_words

# Without a terminal, at most a line for so much of the work: a log is read
# later.
_SHARE = 0.05


class UsageError(Exception):
    """A mistake in the arguments that the user can mend."""


class Interrupted(Exception):
    """Ctrl-C, after something was written."""


class Progress:
    """Tells how far a task is, and how long it will still take.

    On a terminal one line changes in place. Elsewhere a line comes now and
    then, and none for what is done within ten seconds. (Keras' own bar writes
    its control characters into files, too.)

    It may be passed for `verbose` to what shows a progress bar: then one
    `Progress` counts several passes over the pictures.

    Args:
        unit: String, what is counted.
        total: Integer, how much there is to do. `None` takes what the first
            part says.
    """

    def __init__(self, unit, total=None):
        self._unit = unit
        self._total = total
        self._done = self._told = 0
        self._in_place = sys.stdout.isatty()
        self._width = 0
        self._last = time.monotonic()
        self._first = None

    def part(self, total):
        """Returns what counts one task of several, by `update(done)`."""
        if self._total is None:
            self._total = total
        return _Part(self, self._done)

    def update(self, done, text=None):
        """Tells of `done`, in the words of `text` if there are any."""
        now = time.monotonic()
        self._done = done
        if self._first is None:
            # The first step traces and compiles: it says nothing of others.
            self._first = now, done
        total = self._total
        if total is not None and done >= total:
            self.clear()
            return
        if self._in_place:
            if now - self._last < 0.1:
                return
        elif now - self._last < SECONDS or (
            done - self._told < _SHARE * (total or 0)
        ):
            return
        self._last, self._told = now, done
        if text is None:
            of = "" if total is None else f" of {total:,}"
            text = f"{done:,}{of} {self._unit}"
        line = f"  {text}{self.left()}"
        if self._in_place:
            print(f"\r{line:<{self._width}}", end="", flush=True)
            self._width = len(line)
        else:
            print(line, flush=True)

    def left(self):
        """The time left, as the end of a line; nothing if it is not known."""
        if self._first is None or self._total is None:
            return ""
        begun, before = self._first
        if not before < self._done < self._total:
            return ""
        each = (time.monotonic() - begun) / (self._done - before)
        return f"; {in_words(each * (self._total - self._done))} left"

    def line(self, text):
        """Prints a line that stays."""
        self.clear()
        print(f"  {text}{self.left()}", flush=True)
        self._last, self._told = time.monotonic(), self._done

    def clear(self):
        """Takes the line that changes away."""
        if self._width:
            print(f"\r{'':<{self._width}}\r", end="", flush=True)
            self._width = 0


class _Part:
    def __init__(self, whole, before):
        self._whole = whole
        self._before = before

    def update(self, done):
        self._whole.update(self._before + done)


def say(step, text):
    print(f"[{step}] {text}", flush=True)


def short(text, most):
    """Shortens a text in its middle."""
    if len(text) <= most:
        return text
    end = (most - 2) // 2
    return f"{text[: most - 2 - end]}..{text[-end:]}"


def make_folder(folder):
    """Makes the folder of `--output`, unless it is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output {folder} cannot be made: {error.strerror}."
        ) from error
    try:  # Not only after an hour of work.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(
            f"--output {folder} cannot be written to: {error.strerror}."
        ) from error


def write_text(path, text):
    """Writes a text file, whole or not at all."""
    with _atomic_path(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def write_figure(path, figure):
    """Writes a picture, whole or not at all."""
    with _atomic_path(path) as unfinished:
        figure.savefig(unfinished)


def _atomic_path(path):
    from keras_uap.utils.saving import atomic_path  # It needs Keras.

    return atomic_path(path)


# TensorFlow's lines ---------------------------------------------------------


def load_tensorflow():
    """Imports TensorFlow without its lines about the machine.

    Whoever sets TF_CPP_MIN_LOG_LEVEL to 0 or 1 sees them.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" in sys.modules or level in ("0", "1"):
        return
    # Some come from C++ before it looks at that variable, and one, an error,
    # from the search for GPUs where there are none.
    with _stderr_held_back():
        tensorflow = importlib.import_module("tensorflow")
        tensorflow.config.list_physical_devices()
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _stderr_held_back():
    """Keeps what is written to stderr; shows it if there is an error."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        try:
            kept = os.dup(2)
        except OSError:  # There is no stderr.
            yield
            return
        os.dup2(held.fileno(), 2)
        failed = False
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))
