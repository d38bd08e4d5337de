"""The fooling rate at equal model passes, beside reference updates.

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/equal_passes.py --photos FOLDER --output DIR

The embedded EfficientNet-Lite0, l-infinity norm, epsilon 10, pixels 0 to 255.
FOLDER holds 224x224 crops named `<photograph>_<crop>.jpg`; without it the
embedded photographs are used. Writes equal_passes.json and .md to DIR.
`--quick` only checks that everything runs: its figures mean nothing.
"""

import functools

import keras
import numpy as np
import peers
from common import BATCH, EPSILON, make_parser, say, tabulate

from keras_uap import datasets


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


def quality(setup):
    images, budgets = setup.images, setup.size((2000, 8000), (64, 128))
    seeds = range(setup.size(3, 1))
    labels = setup.labels(images.astype("float32"))
    results = {}  # (setting, budget): rates

    def ours(name, update, budgets, passes, batch_size, data=None):
        at = [budget // (passes * batch_size) for budget in budgets]
        for seed in seeds:
            keras.utils.set_random_seed(seed)
            uap = setup.uap(lambda uap: update(uap, max(at)))
            judge = _JudgeAt(at, setup.judge)
            x = {"x": images, "batch_size": batch_size}
            if data is not None:
                x = {"x": data(images, batch_size, seed=seed)}
            uap.fit(**x, epochs=max(at), verbose=0, callbacks=[judge])
            note(name, budgets, judge.rates)

    def reference(name, run, cap):
        gradient = peers.clipped_gradient(setup.logits, setup.shape, cap)
        for seed in seeds:
            rng = np.random.default_rng(seed)
            rates, best = [], np.zeros(setup.shape)
            steps = run(gradient, images, labels, EPSILON, rng)
            for passes, v in steps:
                while len(rates) < len(budgets) and (
                    passes > budgets[len(rates)]
                ):
                    rates.append(setup.judge(best))
                if len(rates) == len(budgets):
                    break
                best = v
            note(name, budgets, rates)

    def note(name, budgets, rates):
        for budget, rate in zip(budgets, rates, strict=True):
            say(f"  {name}, {budget} passes: {rate:.1%}")
            results.setdefault((name, budget), []).append(rate)

    ours("keras_uap, lion", lambda uap, batches: "lion", budgets, 2, BATCH)
    for budget in budgets:  # Its steps depend on the length of the run.
        for name, passes, data in (
            ("keras_uap, decaying_lion", 2, None),
            ("keras_uap, decaying_lion, augmented", 3, datasets.augmented),
        ):
            ours(
                name,
                lambda uap, batches: uap.decaying_lion(batches),
                [budget],
                passes,
                BATCH,
                data,
            )
    sign_sgd, sga = peers.sign_sgd, peers.sga
    for name, run, cap in (
        (
            "sign-SGD, step 0.8 of epsilon (Co et al.)",
            functools.partial(sign_sgd, step=0.8 * EPSILON),
            12.0,
        ),
        (
            "sign-SGD, step 0.1 of epsilon",
            functools.partial(sign_sgd, step=0.1 * EPSILON),
            9.0,
        ),
        (
            "SGA, large batches of 250, 4 rounds (Liu et al.)",
            functools.partial(sga, step=0.1 * EPSILON),
            9.0,
        ),
        (
            "SGA for few passes, large batches of 50, 1 round",
            functools.partial(sga, step=0.1 * EPSILON, batch_size=50, rounds=1),
            9.0,
        ),
    ):
        reference(name, run, cap)
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
        f"{len(seeds)} seeds. Clean predictions of arrays, one pass an image, "
        "are counted for no side; those of augmented images, made with every "
        "batch, are counted. The references follow their papers' step sizes "
        "and caps; SGA's own setting makes one step of v per 2,000 passes, so "
        "a second one suits these budgets.",
        rows,
    )


if __name__ == "__main__":
    tabulate(make_parser(__doc__).parse_args(), quality)
