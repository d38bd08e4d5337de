"""An epoch of the gradient update in the modes of Keras.

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/modes.py --photos FOLDER --output DIR

The embedded EfficientNet-Lite0, l-infinity norm, epsilon 10, pixels 0 to 255.
FOLDER holds 224x224 crops named `<photograph>_<crop>.jpg`; without it the
embedded photographs are used. Writes modes.json and .md to DIR.
`--quick` only checks that everything runs: its figures mean nothing.
"""

from statistics import median

import keras
from common import BATCH, EpochClock, make_parser, say, tabulate

from keras_uap import samples


def modes(setup):
    images = setup.images[: setup.size(64, 32)]
    settings = {
        "default": {},
        "steps_per_execution=4": {"steps_per_execution": 4},
        "jit_compile=True": {"jit_compile": True},
        "mixed_float16 classifier": {"policy": "mixed_float16"},
        "mixed_bfloat16 classifier": {"policy": "mixed_bfloat16"},
    }
    rows = []
    for name, arguments in settings.items():
        policy = arguments.pop("policy", None)
        clock = EpochClock()
        uap = setup.uap(
            "lion",
            _with_policy(policy) if policy else setup.classifier,
            **arguments,
        )
        try:
            uap.fit(
                images,
                batch_size=BATCH,
                epochs=setup.size(setup.repeats, 1) + 1,
                verbose=0,
                callbacks=[clock],
            )
        except Exception as error:  # What does not compile is a finding.
            say(f"  {name}: {type(error).__name__}: {error}")
            rows.append({"mode": name, "epoch, seconds": "does not run"})
            continue
        seconds = median(clock.seconds[1:])
        rows.append(
            {
                "mode": name,
                "epoch, seconds": seconds,
                "ratio": seconds / rows[0]["epoch, seconds"] if rows else 1.0,
                "first epoch, seconds": clock.seconds[0],
            }
        )
        say(f"  {rows[-1]}")
    return (
        "Modes of Keras",
        f"One epoch of `lion` on {len(images)} images, batches of {BATCH}; "
        "the first epoch traces and compiles. v stays float32 throughout.",
        rows,
    )


def _with_policy(name):
    """A fresh classifier whose layers compute in another precision."""
    classifier = samples.load_classifier()
    for layer in classifier._flatten_layers():
        layer.dtype_policy = keras.DTypePolicy(name)
    return classifier


if __name__ == "__main__":
    tabulate(make_parser(__doc__).parse_args(), modes)
