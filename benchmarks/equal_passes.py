"""The fooling rate at equal model passes, beside reference updates.

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/equal_passes.py --photos FOLDER --output DIR
    python benchmarks/equal_passes.py --photos FOLDER --output DIR \\
        --classifier PATH --budgets 2000

The embedded EfficientNet-Lite0, or the classifier in PATH, a `.keras` file
that takes RGB images in 0 to 255 to logits; l-infinity norm, epsilon 10.
FOLDER holds 224x224 crops named `<photograph>_<crop>.jpg`; without it the
embedded photographs are used. Writes equal_passes.json and .md to DIR. Ours
are the mean and range of --seeds (3) seeds, the references have one. `--quick`
only checks that everything runs: its figures mean nothing.
"""

import functools

import keras
import numpy as np
import peers
from common import BATCH, EPSILON, make_parser, say, tabulate

import keras_uap
from keras_uap.attacks import schedules
from keras_uap.classifiers.logits import features_function


class _JudgeAt(keras.callbacks.Callback):
    """Judges v after certain numbers of batches; the last ends the fit."""

    def __init__(self, batches, judge):
        super().__init__()
        self.batches, self.judge = batches, judge
        self.seen, self.rates = 0, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen in self.batches:
            self.rates.append(self.judge(self.model.v))
        if self.seen >= max(self.batches):
            self.model.stop_training = True


def quality(setup, budgets=None, seeds=3):
    images = setup.images
    budgets = budgets or setup.size((500, 2000, 8000), (64, 128))
    seeds = range(setup.size(seeds, 1))
    labels = setup.labels(images.astype("float32"))
    results = {}  # (setting, budget): rates

    def ours(name, update, budgets, loss="crossentropy"):
        at = [budget // (2 * BATCH) for budget in budgets]
        for seed in seeds:
            keras.utils.set_random_seed(seed)
            uap = setup.uap(lambda uap: update(uap, max(at)), loss=loss)
            judge = _JudgeAt(at, setup.judge)
            uap.fit(
                images,
                batch_size=BATCH,
                epochs=max(at),
                verbose=0,
                callbacks=[judge],
            )
            note(name, budgets, judge.rates)

    def reference(name, steps):
        rates, best = [], np.zeros(setup.shape)
        for passes, v in steps:
            while len(rates) < len(budgets) and passes > budgets[len(rates)]:
                rates.append(setup.judge(best))
            if len(rates) == len(budgets):
                break
            best = v
        note(name, budgets, rates)

    def note(name, budgets, rates):
        for budget, rate in zip(budgets, rates, strict=True):
            say(f"  {name}, {budget} passes: {rate:.1%}")
            results.setdefault((name, budget), []).append(rate)

    ours(
        'keras_uap, "lion", cross-entropy',
        lambda uap, batches: "lion",
        budgets,
    )
    for budget in budgets:  # Its steps depend on the length of the run.
        ours(
            'keras_uap, "decaying_lion", dominant',
            lambda uap, batches: uap.decaying_lion(batches),
            [budget],
            "dominant",
        )
        ours('keras_uap, "deepfool"', _deepfool, [budget])
    for name, steps in references(setup, labels):
        reference(name, steps)
    rows = []
    for name in dict.fromkeys(name for name, _ in results):
        row = {"setting": name}
        for budget in budgets:
            rates = results[name, budget]
            row[f"fooling rate, {budget} passes"] = float(np.mean(rates))
            row[f"range, {budget} passes"] = (
                f"{min(rates):.1%} to {max(rates):.1%}"
            )
        rows.append(row)
    return (
        "Fooling rate at equal model passes",
        f"{len(images)} crops to fit, {len(setup.held_out)} held-out crops "
        f"(random signs fool {setup.random_rate:.1%}); mean and range of "
        f"{len(seeds)} seeds, of the references one. What the network makes of "
        "the clean images, one pass an image, is counted for no side. The "
        "references follow their papers' step sizes and caps; SGA's own "
        "setting makes one step of v per 2,000 passes, so a second one suits "
        "these budgets. Cos-UAP has the rate of FG-UAP.",
        rows,
    )


def _deepfool(uap, batches):
    """As by its name, in steps that fall over so many batches."""
    first = keras_uap.DeepFool.FIRST_STEP
    return keras_uap.DeepFool(step_size=schedules.linear_decay(first, batches))


def references(setup, labels):
    """Yields the name of each reference, and its generator of steps."""
    images = setup.images

    def rng():
        return np.random.default_rng(0)

    for name, run, cap in (
        (
            "sign-SGD, step 0.8 of epsilon (Co et al.)",
            functools.partial(peers.sign_sgd, step=0.8 * EPSILON),
            12.0,
        ),
        (
            "sign-SGD, step 0.1 of epsilon",
            functools.partial(peers.sign_sgd, step=0.1 * EPSILON),
            9.0,
        ),
        (
            "SGA, large batches of 250, 4 rounds (Liu et al.)",
            functools.partial(peers.sga, step=0.1 * EPSILON),
            9.0,
        ),
        (
            "SGA for few passes, large batches of 50, 1 round",
            functools.partial(
                peers.sga, step=0.1 * EPSILON, batch_size=50, rounds=1
            ),
            9.0,
        ),
    ):
        gradient = peers.clipped_gradient(setup.logits, setup.shape, cap)
        yield name, run(gradient, images, labels, EPSILON, rng())
    rate = 0.02 * 255
    yield (
        "Cos-UAP (Zhang et al.)",
        peers.cosine_adam(setup.logits, images, EPSILON, rng(), rate),
    )
    try:
        both = features_function(setup.classifier)
    except ValueError as error:
        say(f"FG-UAP is left out: {error}")
        return
    yield (
        "FG-UAP (Ye et al.)",
        peers.cosine_adam(lambda x: both(x)[0], images, EPSILON, rng(), rate),
    )


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--classifier", metavar="PATH", help="a .keras file")
    parser.add_argument(
        "--budgets", type=int, nargs="+", help="model passes to judge after"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of ours")
    options = parser.parse_args()
    part = functools.partial(
        quality, budgets=options.budgets, seeds=options.seeds
    )
    tabulate(options, part, path=options.classifier)


if __name__ == "__main__":
    main()
