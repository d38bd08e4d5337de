"""What the commands print and write, and the errors that end them."""

import importlib
import logging
import os
import sys
import tempfile


class UsageError(Exception):
    """A mistake in the arguments that the user can mend."""


class Interrupted(Exception):
    """Ctrl-C, after something was written."""


def say(step, text):
    """Prints which step of a command begins."""
    print(f"[{step}] {text}", flush=True)


def make_folder(folder):
    """Makes the folder of `--output`, unless it is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A folder that cannot be written to is found before the work begins.
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
    """Writes a matplotlib figure, whole or not at all."""
    with _atomic_path(path) as unfinished:
        figure.savefig(unfinished)


def _atomic_path(path):
    from keras_uap.utils.saving import atomic_path  # It needs Keras.

    return atomic_path(path)


def load_tensorflow():
    """Imports TensorFlow with few of its log lines.

    With the environment variable TF_CPP_MIN_LOG_LEVEL at 0 or 1 it prints all.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" in sys.modules or level in ("0", "1"):
        return
    importlib.import_module("tensorflow")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
