"""What the commands say and write, and the mistakes that they tell of."""

import keras

from keras_uap.saving import atomic_path


class UsageError(Exception):
    """A mistake in the arguments that the user can mend."""


class Interrupted(Exception):
    """Ctrl-C, after something was written."""


class Progress(keras.callbacks.Callback):
    """Tells of each epoch of a perturbation in 80 columns."""

    def on_epoch_end(self, epoch, logs=None):
        name = "target_rate" if "target_rate" in logs else "fooling_rate"
        verb = "sent to the target" if "target_rate" in logs else "fooled"
        text = f"  epoch {epoch + 1} of {self.params['epochs']}: "
        text += f"{logs[name]:.1%} {verb}"
        if f"val_{name}" in logs:
            text += f", {logs[f'val_{name}']:.1%} of those that choose"
        print(text, flush=True)


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


def write_text(path, text):
    """Writes a text file, whole or not at all."""
    with atomic_path(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def write_figure(path, figure):
    """Writes a picture, whole or not at all."""
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished)
