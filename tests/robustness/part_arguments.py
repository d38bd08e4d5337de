"""Bad arguments: every one is refused by name, before any work.

A table says of what kind each argument is, and what a good call looks like. A
kind is a function from random draws to bad values. Each bad value goes into an
otherwise good call, which must end in a ValueError or a TypeError that names
the argument.
"""

import warnings

import common
import keras
import numpy as np
import tensorflow as tf

import keras_uap
from keras_uap import analysis, interchange, losses, lp_ball

V = np.full(common.SHAPE, 0.01, "float32")


# Kinds of arguments: what is bad for each of them -----------------------------

# No number, and no word that anything here knows.
STRANGE = ["abc", "", [], {}, (), object(), len, 1j, b"1", [1.0, 2.0], {1: 2}]
ODD_NUMBERS = [np.nan, np.inf, -np.inf, True]


def _except(bad, *allowed):
    return [value for value in bad if not any(value is a for a in allowed)]


def positive(rng):
    return [
        *STRANGE,
        *ODD_NUMBERS,
        None,
        0,
        -1,
        0.0,
        -float(rng.exponential(10)),
        -float(10 ** rng.uniform(-30, 30)),
        str(rng.integers(1, 99)),
    ]


def optional_positive(rng):
    return _except(positive(rng), None)


def not_negative(rng):
    return _except(positive(rng), 0, 0.0)


def below_one(rng):
    """Good are numbers in [0, 1)."""
    return [*not_negative(rng), 1, 1.0 + float(rng.exponential())]


def share(rng):
    """Good are numbers in (0, 1]."""
    return [*positive(rng), 1.0 + float(rng.exponential()), 2]


def open_share(rng):
    """Good are numbers in (0, 1)."""
    return [*share(rng), 1]


def optional_share(rng):
    return [
        *_except(not_negative(rng), None),
        1.0 + float(rng.exponential()),
    ]


def whole(least):
    def bad(rng):
        return [
            *STRANGE,
            *ODD_NUMBERS,
            None,
            least - 1,
            least - 1 - int(rng.integers(0, 1000)),
            least + 0.5,
            float(rng.uniform(least, least + 100)),
            str(least),
            np.array([least, least]),
        ]

    return bad


def optional_whole(least):
    return lambda rng: _except(whole(least)(rng), None)


def norm(rng):
    words = ["l1", "L2", "inf", "linf ", "l0", "2"]
    return [*STRANGE, None, True, 0, 1, 3, -np.inf, np.nan, *words]


def value_range(rng):
    low = float(rng.normal(0, 100))
    return [
        *_except(STRANGE, STRANGE[9]),
        255,
        True,
        (low, low),
        (low, low - float(rng.exponential(9))),
        (low, np.nan),
        (-np.inf, low),
        (0, 1, 2),
        ("a", "b"),
        (None, 1),
        [[0, 1]],
    ]


def from_logits(rng):
    return [*STRANGE, 0, 1, 1.0, "True", np.nan, float(rng.normal())]


def flag(rng):
    return [*STRANGE, None, 2, np.nan, "False", float(rng.normal())]


def classifier(rng):
    shape = tuple(rng.integers(1, 5, rng.integers(0, 4)).tolist())
    return [*STRANGE, None, 3, np.zeros(shape), keras.Sequential, tf.nn.relu]


def _broken(array, rng):
    broken = np.array(array, "float32")
    index = tuple(int(rng.integers(0, size)) for size in broken.shape)
    broken[index] = rng.choice([np.nan, np.inf, -np.inf])
    return broken


def images(rng):
    """Batches of images that are none, or not of the right size."""
    good = common.images(4)
    shape = [int(size) for size in rng.integers(1, 7, rng.integers(0, 6))]
    return [
        *STRANGE,
        None,
        3.5,
        good[:0],
        good[0],
        good[..., :2],
        good[:, :-1],
        np.zeros(shape),
        good.astype(str),
        good.astype(object),
        good.astype(complex),
        _broken(good, rng),
        _broken(good, rng),
    ]


def _wrong_size(rng):
    good = common.images(4)
    shape = [int(size) for size in rng.integers(1, 7, rng.integers(3, 6))]
    return [good[..., :2], good[:, :-1], good[:, :, 1:], np.zeros(shape)]


def pictures(rng):
    """The same where any size of image will do."""
    good = common.images(4)
    return [
        *STRANGE,
        None,
        3.5,
        good[:0],
        good.astype(str),
        good.astype(object),
        good.astype(complex),
        _broken(good, rng),
        _broken(good, rng),
    ]


def perturbation(rng):
    shape = [int(size) for size in rng.integers(1, 7, rng.integers(0, 6))]
    return [
        *STRANGE,
        None,
        3.5,
        np.zeros(shape),
        V.astype(complex),
        np.full(common.SHAPE, "a"),
        np.full(common.SHAPE, None),
        _broken(V, rng),
        _broken(V, rng),
        V[:, :-1],
        V[..., :1],
    ]


def optional_perturbation(rng):
    return _except(perturbation(rng), None)


def array_of_numbers(rng):
    return [
        *_except(STRANGE, STRANGE[2], STRANGE[4], STRANGE[9]),
        None,
        np.array(["a"]),
        np.array([None]),
        V.astype(complex),
    ]


def mask(rng):
    shape = [int(size) for size in rng.integers(1, 7, rng.integers(1, 5))]
    return [
        *STRANGE,
        3,
        np.zeros(common.SHAPE),
        np.ones(shape),
        np.full(common.SHAPE, "a"),
        np.full(common.SHAPE, None),
        np.ones((8, 8, 1, 1)),
    ]


def target(rng):
    return [*optional_whole(0)(rng), 4, 5 + int(rng.integers(0, 10**6))]


def optimizer(rng):
    letters = "".join(rng.choice(list("abcxyz"), 6))
    return [
        *STRANGE,
        3,
        letters,
        "deepfool2",
        keras.optimizers.Lion,
        keras_uap.DeepFool,
    ]


def optional_optimizer(rng):
    return optimizer(rng)


def loss(rng):
    return [
        *STRANGE,
        None,
        3,
        "mse",
        keras.losses.mean_squared_error,
        keras_uap.losses.Margin,
    ]


def labels(rng):
    count = int(rng.integers(5, 99))
    return [
        *_except(STRANGE, STRANGE[0]),
        3,
        np.zeros(count),
        np.zeros((2, 4)),
        np.array(["a", "b", "c", "d"]),
    ]


def groups(rng):
    count = int(rng.integers(5, 99))
    return [*STRANGE, 3, np.arange(count), np.zeros(4), np.zeros((4, 2))]


def callbacks(rng):
    return [*_except(STRANGE, *STRANGE[1:5]), 3, [3], ["abc"], len, [None]]


def data(rng):
    return [*images(rng), tf.data.Dataset.range(3), iter([1])]


def optional_data(rng):
    return _except(data(rng), None)


def hits(rng):
    return [
        *_except(STRANGE, STRANGE[9]),
        None,
        3,
        np.zeros((3, 2)),
        np.zeros(0),
        np.array(["a", "b"]),
        _broken(np.zeros(9), rng),
        np.array([0, 1, 1j]),
    ]


def whole_sizes(most):
    def bad(rng):
        return [
            *STRANGE,
            None,
            3,
            (0,),
            (2, most + 1 + int(rng.integers(99))),
            (-1,),
            (1.5,),
            ("a",),
            (np.nan,),
            (True,),
        ]

    return bad


def epsilons(rng):
    return [*STRANGE[:9], None, 3, (0,), (1, -2.0), (np.nan,), (np.inf,)]


def kinds(rng):
    return [*STRANGE, None, 3, {"a": None}, {"a": common.images(4)[:0]}]


def perturbations(rng):
    return [
        *STRANGE,
        None,
        3,
        {"a": _broken(V, rng)},
        {"a": V[..., :1]},
        [V, 1],
    ]


def card(rng):
    good = {"epsilon": 1.0, "norm": "linf", "value_range": (0, 1)}
    bad = [
        *({**good, "epsilon": value} for value in positive(rng)),
        *({**good, "norm": value} for value in norm(rng)),
        *({**good, "value_range": value} for value in value_range(rng)),
        *({k: w for k, w in good.items() if k != key} for key in good),
        {**good, "note": object()},
        {**good, "note": np.nan},
        {**good, "epsilon": 1e-6},
    ]
    return [*_except(STRANGE, STRANGE[3], STRANGE[10]), None, 3, *bad]


def cap(rng):
    return _except(positive(rng), *ODD_NUMBERS[1:2])


# Good calls, and the kinds of their arguments ---------------------------------


class Table:
    """The calls: each a function, its good arguments and their kinds."""

    def __init__(self):
        self.model = model = common.linear()
        x = common.images(4)
        fixed = {"verbose": 0}
        measure = {
            "norm": norm,
            "value_range": value_range,
            "seed": whole(0),
            "batch_size": whole(1),
            "from_logits": from_logits,
        }
        fitting = {"epsilon": positive, "draws": whole(1), **measure}
        uap = keras_uap.UniversalPerturbation(model, 0.1, value_range=(0, 1))
        layer = keras_uap.PerturbationLayer(V, value_range=(0, 1))
        normals = analysis.boundary_normals(model, common.images(12), verbose=0)
        spectrum = analysis.normal_spectrum(normals)
        self.model_calls = [
            (
                keras_uap.UniversalPerturbation,
                {"classifier": model, "epsilon": 0.1},
                {
                    "classifier": classifier,
                    "epsilon": positive,
                    "norm": norm,
                    "value_range": value_range,
                    "target": target,
                    "mask": mask,
                    "from_logits": from_logits,
                },
            ),
            (
                uap.compile,
                {},
                {
                    "optimizer": optimizer,
                    "loss": loss,
                    "steps_per_execution": whole(1),
                    "run_eagerly": flag,
                    "jit_compile": flag,
                },
            ),
            (uap.decaying_lion, {}, {"batches": whole(1)}),
            (
                uap.fit,
                {"x": x, **fixed},
                {
                    "x": data,
                    "y": labels,
                    "batch_size": optional_whole(1),
                    "epochs": whole(1),
                    "callbacks": callbacks,
                    "validation_split": lambda rng: _except(
                        below_one(rng), None
                    ),
                    "validation_data": optional_data,
                    "initial_epoch": whole(0),
                    "steps_per_epoch": optional_whole(1),
                    "validation_steps": optional_whole(1),
                    "validation_batch_size": optional_whole(1),
                    "validation_freq": lambda rng: _except(
                        whole(1)(rng), *STRANGE
                    ),
                },
            ),
            (
                uap.evaluate,
                {"x": x, **fixed},
                {
                    "x": data,
                    "y": labels,
                    "batch_size": optional_whole(1),
                    "steps": optional_whole(1),
                },
            ),
            (uap.perturb, {}, {"images": _wrong_size}),
            (
                lambda perturbation: setattr(uap, "perturbation", perturbation),
                {},
                {"perturbation": perturbation},
            ),
            (
                lambda perturbation: setattr(
                    layer, "perturbation", perturbation
                ),
                {},
                {"perturbation": perturbation},
            ),
            (layer, {}, {"inputs": _wrong_size}),
            (
                keras_uap.PerturbationLayer,
                {"epsilon": 0.1},
                {
                    "epsilon": optional_positive,
                    "norm": norm,
                    "value_range": value_range,
                    "rate": optional_share,
                    "pool_size": optional_whole(1),
                    "step_size": optional_positive,
                    "seed": optional_whole(0),
                },
            ),
            (
                keras_uap.PerturbationLayer,
                {},
                {
                    "perturbation": lambda rng: [
                        *STRANGE,
                        3.5,
                        _broken(V, rng),
                        V.astype(complex),
                        V[0, 0],
                        np.zeros((1, 1, 8, 8, 3)),
                    ]
                },
            ),
            (
                keras_uap.StopAtFoolingRate,
                {"rate": 0.5},
                {"rate": share, "monitor": lambda rng: [*STRANGE, None, 3]},
            ),
            (
                keras_uap.UniversalAdversarialTraining,
                {"images": x, "epsilon": 0.1},
                {
                    "images": pictures,
                    "epsilon": positive,
                    "norm": norm,
                    "value_range": value_range,
                    "validation_images": lambda rng: _except(
                        pictures(rng), None
                    ),
                    "every": optional_whole(1),
                    "measure_every": whole(1),
                    "optimizer": optional_optimizer,
                    "loss": loss,
                    "epochs": whole(1),
                    "batch_size": whole(1),
                    "from_logits": from_logits,
                    "seed": whole(0),
                },
            ),
            (
                keras_uap.deepfool,
                {"classifier": model, "images": x, **fixed},
                {
                    "classifier": classifier,
                    "images": lambda rng: images(rng),
                    "num_candidates": whole(2),
                    "overshoot": not_negative,
                    "max_steps": whole(1),
                    "batch_size": whole(1),
                    "from_logits": from_logits,
                },
            ),
            (
                keras_uap.DeepFool,
                {},
                {
                    "num_candidates": whole(2),
                    "overshoot": not_negative,
                    "max_steps": whole(1),
                    "one_by_one": flag,
                    "step_size": positive,
                    "momentum": below_one,
                },
            ),
            (
                keras_uap.project,
                {"perturbation": V, "epsilon": 0.1},
                {
                    "perturbation": array_of_numbers,
                    "epsilon": positive,
                    "norm": norm,
                },
            ),
            (
                lp_ball.lp_norm,
                {"perturbation": V},
                {"perturbation": array_of_numbers, "norm": norm},
            ),
            (
                keras_uap.LpBall,
                {"epsilon": 0.1},
                {"epsilon": positive, "norm": norm},
            ),
            (losses.ClippedCrossentropy, {}, {"cap": cap}),
            (losses.Margin, {}, {"cap": cap}),
            (losses.get, {}, {"loss": loss}),
            (
                keras_uap.logits_function,
                {"classifier": model},
                {"classifier": classifier, "from_logits": from_logits},
            ),
            (
                interchange.save_perturbation,
                {"path": "/nonexistent/v.npz", "perturbation": V},
                {"card": card},
            ),
            (
                interchange.save_perturbation,
                {
                    "path": "/nonexistent/v.npz",
                    "card": {
                        "epsilon": 1.0,
                        "norm": "linf",
                        "value_range": None,
                    },
                },
                {
                    "perturbation": lambda rng: [
                        *STRANGE,
                        None,
                        _broken(V, rng),
                        V[0, 0],
                        V.astype(complex),
                        V * 1000,
                    ]
                },
            ),
            (
                analysis.fit_perturbation,
                {"classifier": model, "images": x},
                {
                    "classifier": classifier,
                    "images": images,
                    "target": target,
                    "optimizer": optional_optimizer,
                    **fitting,
                },
            ),
            (
                analysis.fooling_report,
                {"classifier": model, "perturbation": V, "images": x, **fixed},
                {
                    "classifier": classifier,
                    "perturbation": perturbation,
                    "images": images,
                    "labels": labels,
                    "groups": groups,
                    "num_random": whole(1),
                    **measure,
                },
            ),
            (
                analysis.label_flow,
                {"classifier": model, "perturbation": V, "images": x, **fixed},
                {
                    "classifier": classifier,
                    "perturbation": perturbation,
                    "images": images,
                    "value_range": value_range,
                    "batch_size": whole(1),
                    "from_logits": from_logits,
                },
            ),
            (
                analysis.target_rates,
                {
                    "classifier": model,
                    "images": x,
                    "held_out": x,
                    "targets": [1],
                    **fixed,
                },
                {
                    "classifier": classifier,
                    "images": images,
                    "held_out": images,
                    "targets": lambda rng: [
                        *STRANGE,
                        None,
                        [-1],
                        [4],
                        [1.5],
                        ["a"],
                        [99 + int(rng.integers(99))],
                    ],
                    "groups": groups,
                    **fitting,
                },
            ),
            (
                analysis.transfer_matrix,
                {
                    "classifiers": {"a": model},
                    "perturbations": {"a": V},
                    "images": x,
                    **fixed,
                },
                {
                    "classifiers": lambda rng: [*STRANGE, None, 3, {"a": 3}],
                    "perturbations": perturbations,
                    "images": pictures,
                    "groups": groups,
                    "value_ranges": lambda rng: [
                        {"b": (0, 1)},
                        {"a": (1, 0)},
                        3,
                        "abc",
                    ],
                    **measure,
                },
            ),
            (
                analysis.perturbation_diversity,
                {"classifier": model, "images": x, **fixed},
                {
                    "classifier": classifier,
                    "images": images,
                    "held_out": lambda rng: _except(images(rng), None),
                    "count": whole(2),
                    **fitting,
                },
            ),
            (
                analysis.inner_products,
                {},
                {
                    "perturbations": lambda rng: [
                        *_except(STRANGE, STRANGE[9], STRANGE[10], b"1"),
                        None,
                        3,
                        [V, V[0]],
                        [V, 0 * V],
                        [V, _broken(V, rng)],
                    ]
                },
            ),
            (
                analysis.sample_size_curve,
                {
                    "classifier": model,
                    "images": x,
                    "held_out": x,
                    "sizes": (2,),
                    **fixed,
                },
                {
                    "classifier": classifier,
                    "images": images,
                    "held_out": images,
                    "sizes": whole_sizes(4),
                    "num_seeds": whole(1),
                    "groups": groups,
                    **fitting,
                },
            ),
            (
                analysis.image_kinds,
                {
                    "classifier": model,
                    "kinds": {"a": x},
                    "held_out": x,
                    **fixed,
                },
                {
                    "classifier": classifier,
                    "kinds": kinds,
                    "held_out": images,
                    "num_seeds": whole(1),
                    "groups": groups,
                    **fitting,
                },
            ),
            (
                analysis.epsilon_curve,
                {
                    "classifier": model,
                    "images": x,
                    "held_out": x,
                    "epsilons": (0.1,),
                    **fixed,
                },
                {
                    "epsilons": epsilons,
                    "num_seeds": whole(1),
                    "groups": groups,
                    "draws": whole(1),
                    **measure,
                },
            ),
            (
                analysis.baseline_rates,
                {
                    "classifier": model,
                    "perturbation": V,
                    "images": x,
                    "held_out": x,
                    **fixed,
                },
                {
                    "classifier": classifier,
                    "perturbation": perturbation,
                    "images": images,
                    "held_out": images,
                    "norms": lambda rng: _except(epsilons(rng), None),
                    "groups": groups,
                    **measure,
                },
            ),
            (
                analysis.boundary_normals,
                {"classifier": model, "images": x, **fixed},
                {
                    "classifier": classifier,
                    "images": images,
                    "num_candidates": whole(2),
                    "max_steps": whole(1),
                    "batch_size": whole(1),
                    "from_logits": from_logits,
                },
            ),
            (
                analysis.normal_spectrum,
                {"normals": normals},
                {
                    "normals": lambda rng: [
                        *STRANGE,
                        None,
                        V[np.newaxis],
                        np.stack([V, 0 * V]),
                        np.stack([V, _broken(V, rng)]),
                    ],
                    "seed": whole(0),
                },
            ),
            (
                analysis.subspace_fooling,
                {
                    "classifier": model,
                    "spectrum": spectrum,
                    "images": x,
                    "dims": (2,),
                    **fixed,
                },
                {
                    "classifier": classifier,
                    "spectrum": lambda rng: [*STRANGE, None, V],
                    "images": images,
                    "dims": whole_sizes(12),
                    "groups": groups,
                    "epsilon": positive,
                    "num_random": whole(1),
                    **measure,
                },
            ),
            (
                analysis.subspace_perturbation,
                {
                    "classifier": model,
                    "spectrum": spectrum,
                    "images": x,
                    "dim": 2,
                    **fixed,
                },
                {
                    "spectrum": lambda rng: [*STRANGE, None, V],
                    "images": images,
                    "dim": whole(1),
                    "epsilon": positive,
                    "norm": norm,
                    "value_range": value_range,
                },
            ),
            (
                analysis.rate_interval,
                {"hits": np.arange(8) % 2},
                {"hits": hits, "groups": groups, "level": open_share},
            ),
            (
                analysis.difference_interval,
                {"differences": np.arange(8) % 2 - 0.5},
                {"differences": hits, "groups": groups, "level": open_share},
            ),
        ]


# Other words by which a message may name an argument.
ALIASES = {
    "x": ("x ", "images", "x_"),
    "images": ("images", "input 0", "input shape"),
    "inputs": ("images", "inputs"),
    "validation_data": ("validation_data", "images"),
    "value_ranges": ("value_range",),
    "normals": ("normal",),
    "y": ("label", "y "),
    "hits": ("hits",),
    "targets": ("target",),
    "labels": ("label",),
    "groups": ("group",),
    "classifiers": ("classifier",),
    "spectrum": ("spectrum", "normals"),
    "perturbations": ("perturbation",),
    "sizes": ("size",),
    "epsilons": ("epsilon",),
    "norms": ("norm",),
    "dims": ("dim",),
    "kinds": ("kind",),
    "held_out": ("held_out", "held-out"),
    "validation_images": ("validation_images",),
    "card": ("card",),
}


def run(report, quick, seed):
    warnings.simplefilter("ignore")
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    table = Table()
    weights = [w.copy() for w in table.model.get_weights()]
    seen = set()
    for _ in range(1 if quick else 3):
        for function, good, kinds_of in table.model_calls:
            title = getattr(function, "__qualname__", str(function))
            for name, kind in kinds_of.items():
                for value in kind(rng):
                    _try(report, title, function, good, name, value, seen)
    for before, after in zip(weights, table.model.get_weights()):
        report.check(np.array_equal(before, after), "the classifier changed")


def _try(report, title, function, good, name, value, seen):
    report.count("bad calls tried")
    text = f"{title}({name}={str(value)[:40]!r} of {type(value).__name__})"
    error = None
    try:
        with common.time_limit(20):
            function(**{**good, name: value})
    except (Exception, common.Hang) as caught:
        error = caught
    names = ALIASES.get(name, (name,))
    if error is None:
        problem = "was accepted"
    elif not isinstance(error, (ValueError, TypeError)):
        problem = f"raised {type(error).__name__}: {str(error)[:120]}"
    elif not any(word in str(error).lower() for word in names):
        problem = f"names no {name}: {type(error).__name__} {str(error)[:120]}"
    else:
        report.count("refused by name")
        return
    key = (title, name, type(value).__name__, problem.split()[0])
    if key not in seen:  # One line for what is wrong in one way.
        seen.add(key)
        report.check(False, f"{text} {problem}")
