"""Files that are whole or not there, and seeds that are saved.

A kill in the middle of a write leaves the old file as it was. The state of
random draws, which Keras leaves out of its files, is saved with the weights, so
that a resumed run continues as an uninterrupted one would.
"""

import contextlib
import errno
import os
import pathlib
import random
import re
import uuid

import keras

# How the names of files begin that are still being written.
TEMPORARY = ".tmp-"

# The name of the state of the seed generator among the saved variables.
_SEED_STATE = "seed_generator_state"


@contextlib.contextmanager
def atomic_path(path):
    """A temporary path that replaces `path` on success.

    Readers of `path` see the old file or the new one, never half of one.
    """
    path = pathlib.Path(path)
    suffix = "".join(path.suffixes[-2:])  # Such as .weights.h5.
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}{suffix}")
    if not path.parent.is_dir():
        reason = "There is no such folder"
        raise FileNotFoundError(errno.ENOENT, reason, str(path.parent))
    try:
        yield temporary
        # On the disk before it replaces the old one.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # Nobody knows the temporary file.
        reason = error.strerror or str(error)
        reason = reason.replace(str(temporary), str(path))
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def delete_unfinished(folder):
    """Deletes what a killed `atomic_path` left in a folder."""
    for path in folder.glob(TEMPORARY + "*"):
        if re.match(r"[0-9a-f]{32}", path.name.removeprefix(TEMPORARY)):
            path.unlink()


class WholeFiles:
    """Mixin for a `keras.Model`: a save is whole or does not happen."""

    def save(self, filepath, overwrite=True, **kwargs):
        """Saves the model as `keras.Model.save` does, whole or not at all."""
        path = str(filepath)
        if not overwrite or "://" in path or not path.endswith(".keras"):
            # Keras asks before it overwrites, and explains other names.
            super().save(filepath, overwrite, **kwargs)
            return
        with atomic_path(path) as temporary:
            super().save(temporary, **kwargs)


def not_compiled(config):
    """A serialized Keras object without how it and its parts were compiled.

    A classifier is only read, and a loss of the caller's own would keep the
    file from loading.
    """
    if isinstance(config, (list, tuple)):
        return [not_compiled(each) for each in config]
    if not isinstance(config, dict):
        return config
    is_object = "class_name" in config and "config" in config
    return {
        key: not_compiled(value)
        for key, value in config.items()
        if not (is_object and key == "compile_config")
    }


@contextlib.contextmanager
def random_state_kept():
    """Leaves Python's own random numbers as they were.

    Keras draws seeds that are not given from them, such as those of a model's
    generators and of the layers of a copy.
    """
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


class SavedSeed:
    """Mixin for a Keras layer: its `seed_generator` is saved with it."""

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.seed_generator is not None:
            state = self.seed_generator.state
            store[_SEED_STATE] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        names = list(store.keys())
        # Keras numbers the weights. Older files hold other names, too.
        weights = {name: store[name] for name in names if name.isdigit()}
        super().load_own_variables(weights)
        if self.seed_generator is not None and _SEED_STATE in names:
            self.seed_generator.state.assign(store[_SEED_STATE])
