"""The time to 60 % held-out fooling, side by side with the peers.

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/time_to_fool.py --photos FOLDER --output DIR

The embedded EfficientNet-Lite0, l-infinity norm, epsilon 10, pixels 0 to 255.
FOLDER holds 224x224 crops named `<photograph>_<crop>.jpg`; without it the
embedded photographs are used. Writes time_to_fool.json and .md to DIR.
`--quick` only checks that everything runs: its figures mean nothing.
"""

import functools
import time
from statistics import median

import keras
import numpy as np
import peers
from common import (
    BATCH,
    EPSILON,
    HIGH,
    make_parser,
    restorer,
    say,
    seconds_of,
    tabulate,
)

GOAL = 0.6


class Race:
    """A clock that stands still while the perturbation is judged.

    Args:
        judge: Function from a perturbation to its fooling rate.
        goal: Float, the fooling rate that ends the race.
        limit: Float, seconds after which the race ends anyway.
        every: Float, seconds between two looks at the perturbation.
    """

    def __init__(self, judge, goal, limit=np.inf, every=0.0):
        self.judge, self.goal, self.limit = judge, goal, limit
        self.every, self.passes = every, 0
        self.reached = self.over = False
        self.time, self.rate = 0.0, 0.0
        self._start, self._judged, self._next = None, 0.0, every

    def start(self):
        self._start = time.perf_counter()

    @property
    def seconds(self):
        return time.perf_counter() - self._start - self._judged

    def look(self, v):
        """Judges v if it is time to; returns whether the race is over."""
        seconds = self.seconds
        if seconds >= min(self._next, self.limit):
            self._judged += seconds_of(lambda: self._judge(v))
            self.time, self._next = seconds, seconds + self.every
            self.reached = self.rate >= self.goal
            self.over = self.reached or seconds >= self.limit
        return self.over

    def _judge(self, v):
        self.rate = self.judge(v)

    def look_or_stop(self, v):
        if self.look(v):
            raise peers.RaceOver


class _LookEvery(keras.callbacks.Callback):
    """Shows v to the race after every few batches, and ends the fit with it."""

    def __init__(self, race, batches):
        super().__init__()
        self.race, self.batches, self.seen = race, batches, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen % self.batches == 0 and self.race.look(self.model.v):
            self.model.stop_training = True


def _our_race(setup, update, images, race):
    uap = setup.uap(update)
    restore = restorer(uap)
    uap.fit(images[:BATCH], batch_size=BATCH, verbose=0)  # Traces.
    restore()
    look = _LookEvery(race, batches=2)
    race.start()
    uap.fit(
        images,
        batch_size=BATCH,
        epochs=setup.size(20, 2),
        verbose=0,
        callbacks=[look],
    )
    race.passes = len(images) + 2 * BATCH * look.seen


def fooling_time(setup, limits):
    images = setup.images[: setup.size(256, 16)]

    def row(name, races, base=None):
        reached = all(race.reached for race in races)
        seconds = median(race.time for race in races)
        result = {
            "side": name,
            "reached": "yes" if reached else "not reached",
            "seconds": seconds,
            "ratio": seconds / (base or seconds),
            "fooling rate by then": median(race.rate for race in races),
            "model passes": median(race.passes for race in races),
            "runs": len(races),
        }
        say(f"  {name}: {result}")
        return result

    ours = {
        "keras_uap, lion": "lion",
        "keras_uap, decaying_lion over two epochs": lambda uap: (
            uap.decaying_lion(2 * -(-len(images) // BATCH))
        ),
    }
    rows = []
    for name, update in ours.items():
        races = []
        for seed in range(setup.repeats):
            keras.utils.set_random_seed(seed)
            races.append(Race(setup.judge, GOAL))
            _our_race(setup, update, images, races[-1])
        rows.append(row(name, races, rows[0]["seconds"] if rows else None))
    base = rows[0]["seconds"]
    sides = {
        "authors' loop, TensorFlow 2": ("authors", peers.authors_loop, {}),
        "ART, pixels 0 to 255": ("art", peers.art_universal, {}),
        "ART, pixels 0 to 1": ("art", peers.art_universal, {"scale": HIGH}),
    }
    for name, (limit, run, options) in sides.items():
        limit = limits[limit] * base
        race = Race(setup.judge, GOAL, limit, every=limit / 25)
        run(setup.logits, images, EPSILON, race, **options)
        rows.append(row(name, [race], base))
    return (
        f"Time to {GOAL:.0%} held-out fooling",
        f"{len(images)} crops to fit, {len(setup.held_out)} held-out crops; "
        f"random signs fool {setup.random_rate:.1%}. Clocks run from the call, "
        "clean predictions included, and stand still for tracing before it "
        "and for every look at the held-out crops (ours after every two "
        "batches, the peers after every 25th of their limit). A peer is ended "
        f"at {limits['art']:g} times (ART) or "
        f"{limits['authors']:g} times (authors' loop) the time of the "
        "first row. ART gets a compiled function as its model. Its DeepFool "
        "fits pixels in 0 to 1 and makes steps 255 times as long for pixels "
        "in 0 to 255, so it runs both ways.",
        rows,
    )


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument(
        "--limit",
        type=float,
        nargs=2,
        default=(100.0, 30.0),
        metavar=("ART", "LOOP"),
        help="multiples of our time at which ART and the authors' loop are "
        "ended (default: 100 30)",
    )
    options = parser.parse_args()
    limits = dict(zip(("art", "authors"), options.limit))
    tabulate(options, functools.partial(fooling_time, limits=limits))
