"""Files that are whole or not there, and random draws that are saved.

A kill or a full disk in the middle of a save leaves the old file as it was.
The state of random draws, which Keras leaves out of its files, is saved with
the weights, so that a resumed run goes on as an uninterrupted one would.
"""

import contextlib
import math
import os
import pathlib
import random
import tempfile

import keras

# How the names of files begin that are not whole yet.
TEMPORARY = ".tmp-"

# The name of the state of the draws among the saved variables.
_DRAWS = "seed_generator_state"


class atomic_path:
    """Context manager: a temporary path that replaces `path` on success.

    Whoever reads `path` sees the old file or the new one, never half of one.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def __enter__(self):
        handle, name = tempfile.mkstemp(
            prefix=TEMPORARY,
            suffix="".join(self.path.suffixes[-2:]),  # Such as .weights.h5.
            dir=self.path.parent,
        )
        os.close(handle)
        self.temporary = pathlib.Path(name)
        return self.temporary

    def __exit__(self, error_type, *_):
        try:
            if error_type is None:
                # On the disk before it takes the old one's place.
                with open(self.temporary, "rb") as file:
                    os.fsync(file.fileno())
                os.chmod(self.temporary, 0o666 & ~_umask())
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def weights_path(path, model):
    """A temporary path for a model's weights that replaces `path` on success.

    HDF5 brings the process down when the disk is full: it cannot close what it
    cannot write. So the space is asked for first, and its lack is an OSError.
    """
    variables = [*model.variables, *getattr(model.optimizer, "variables", [])]
    size = 2**20 + sum(8 * math.prod(v.shape) + 2**12 for v in variables)
    with atomic_path(path) as temporary:
        if hasattr(os, "posix_fallocate"):
            with open(temporary, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        yield temporary


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _whole(filepath, overwrite, suffix, write_to):
    """A path to write to that becomes `filepath` once it is written."""
    # Without `overwrite`, Keras asks before it writes over a file.
    local = isinstance(filepath, (str, os.PathLike)) and "://" not in str(
        filepath
    )
    if overwrite and local and str(filepath).endswith(suffix):
        with write_to(filepath) as temporary:
            yield temporary
    else:
        yield filepath


class WholeFiles:
    """Mixin for a `keras.Model`: saves are whole or do not happen."""

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Saves the model as `keras.Model.save` does, whole or not at all."""
        with _whole(filepath, overwrite, ".keras", atomic_path) as path:
            super().save(path, overwrite=overwrite, zipped=zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """Saves the weights as Keras does, whole or not at all."""

        def write_to(path):
            return weights_path(path, self)

        with _whole(filepath, overwrite, ".weights.h5", write_to) as path:
            super().save_weights(path, overwrite, max_shard_size)


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

    Keras draws the seeds from them that are not given: those of a model's
    generators and of the layers of a copy.
    """
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


class SavedDraws:
    """Mixin for a Keras layer: its `seed_generator` is saved with it.

    Two hooks: `extra_variables`, what else is saved, and `check_loaded`.
    """

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.seed_generator is not None:
            state = self.seed_generator.state
            store[_DRAWS] = keras.ops.convert_to_numpy(state)
        for name, value in self.extra_variables().items():
            store[name] = value

    def load_own_variables(self, store):
        own = {name: store[name] for name in list(store.keys())}
        state = own.pop(_DRAWS, None)
        self.load_extra_variables(own)
        super().load_own_variables(own)
        if self.seed_generator is not None and state is not None:
            self.seed_generator.state.assign(state)
        if self.built:
            self.check_loaded()

    def extra_variables(self):
        """Arrays by name that are saved beside the weights."""
        return {}

    def load_extra_variables(self, arrays):
        """Takes what `extra_variables` saved out of the dictionary."""

    def check_loaded(self):
        """Raises ValueError for weights that cannot have been saved."""
