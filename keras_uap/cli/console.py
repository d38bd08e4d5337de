"""What the commands print and write, and the errors that end them."""

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import textwrap

from keras_uap.utils.validation import explained


class UsageError(ValueError):
    """A mistake in the arguments that the user can fix."""


class Interrupted(Exception):
    """Ctrl-C, after something was written."""


class GateFailed(Exception):
    """A limit of `audit` is exceeded; all files are written.

    Args:
        text: String, which limit.
        result: What the command returns otherwise.
    """


@contextlib.contextmanager
def kept(text):
    """Makes Ctrl-C end with what was written before it."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted: {text}") from error


def say(step, text):
    """Prints which step of a command begins."""
    print(f"[{step}] {text}", flush=True)


def note(text):
    """Prints what a step of a command found."""
    print(textwrap.indent(textwrap.fill(text, 78), "  "), flush=True)


def make_folder(folder, flag="--output"):
    """Makes the folder of an option, unless it is there."""
    with explained(f"{flag} {folder} cannot be written to"):
        folder.mkdir(parents=True, exist_ok=True)
        # A folder that cannot be written to is found before the work begins.
        tempfile.TemporaryFile(dir=folder).close()


def check_file(flag, path):
    """Checks that the file of an option can be written; makes its folder."""
    make_folder(path.parent, flag)
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder. Expected: a file.")


def write(path, content):
    """Writes a text or a matplotlib figure to a file, whole or not at all."""
    from keras_uap.utils.saving import atomic_path  # It needs Keras.

    with atomic_path(path) as unfinished:
        if isinstance(content, str):
            unfinished.write_text(content + "\n", encoding="utf-8")
        else:
            content.savefig(unfinished)


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
