"""Algorithm 1 of the paper, one image after another, epoch by epoch.

    python benchmarks/algorithm_1.py --output DIR

The embedded EfficientNet-Lite0 and photographs, l-infinity norm, epsilon 10.
Each row is one fit of one seed, measured on held-out images that are clipped
to 0 to 255. The nearest of ten classes without clipping is the paper's
algorithm exactly; of two classes, clipped, it is what `questions.ipynb` shows.
Beside them stands `"decaying_lion"`. `--quick` only checks that it all runs.
"""

import keras
import numpy as np
from common import EPSILON, HIGH, LOW, make_parser, say, tabulate

import keras_uap
from keras_uap import analysis


class _MeasureAfter(keras.callbacks.Callback):
    """Measures v after certain epochs."""

    def __init__(self, epochs, measure):
        super().__init__()
        self.epochs, self.measure, self.passes = epochs, measure, 0

    def on_epoch_end(self, epoch, logs):
        self.passes += int(logs["model_passes"])
        if epoch + 1 in self.epochs:
            self.measure(self.model, epoch + 1, self.passes)


def algorithm_1(setup):
    order = np.random.default_rng(0).permutation(len(setup.images))
    images = setup.images[order]
    few = images[: setup.size(48, 8)]
    long = setup.size((1, 2), (1,))
    rows = []

    def fit(name, images, epochs, update, clipped, **compile_arguments):
        def measure(uap, epoch, passes):
            report = analysis.fooling_report(
                setup.classifier,
                uap.perturbation,
                setup.held_out,
                groups=setup.groups,
                num_random=1,
                verbose=0,
            )
            own = uap.evaluate(images, verbose=0, return_dict=True)
            low, high = report.fooling_interval
            row = {
                "update": name,
                "clipped": "yes" if clipped else "no",
                "images": len(images),
                "epochs": epoch,
                "model passes": passes,
                "rate on its own images": own["fooling_rate"],
                "held-out fooling rate": report.fooling_rate,
                "its 95% interval": f"{low:.1%} to {high:.1%}",
                "the rate without clipping": report.unclipped_rate,
                "rate of random noise": report.random_rate,
            }
            say(f"  {row}")
            rows.append(row)

        uap = keras_uap.UniversalPerturbation(
            setup.classifier,
            epsilon=EPSILON,
            value_range=(LOW, HIGH) if clipped else None,
            from_logits=True,
            seed=0,
        )
        uap.compile(update, **compile_arguments)
        uap.fit(
            images,
            epochs=max(epochs),
            verbose=0,
            callbacks=[_MeasureAfter(epochs, measure)],
        )

    loose, exact = (keras_uap.DeepFool(k, one_by_one=True) for k in (2, 10))
    fit("nearest of 2 classes", few, (1,), loose, True)
    fit("nearest of 10 classes", few, (1,), exact, False)
    fit("nearest of 10 classes", images, long, exact, False)
    name, epochs = "decaying_lion", (setup.size(10, 1),)
    fit(f"{name}, dominant", images, epochs, name, True, loss="dominant")
    return (
        "Algorithm 1",
        f"{len(setup.held_out)} held-out images of {len(set(setup.groups))} "
        "photographs. Clean predictions are not counted.",
        rows,
    )


if __name__ == "__main__":
    tabulate(make_parser(__doc__).parse_args(), algorithm_1)
