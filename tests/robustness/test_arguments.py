"""Bad arguments: every one is refused by name, before any work.

A table says which arguments of which functions are tried. What is good and
what is bad for an argument goes by its name, unless a row says otherwise. Each
bad value goes into an otherwise good call, which must end in a ValueError or a
TypeError that names the argument.
"""

import inspect
from functools import partial

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from limits import Hang, time_limit

import keras_uap
from keras_uap import analysis, interchange, losses
from keras_uap.perturbations.lp_ball import lp_norm

V = np.full(models.SHAPE, 0.01, "float32")
X = models.images(4)
CARD = {"epsilon": 1.0, "norm": "linf", "value_range": None}

# Kinds: functions from random draws to values that are bad --------------------

# No number, and no word that anything here knows.
STRANGE = ["abc", "", [], {}, (), object(), len, 1j, b"1", [1.0, 2.0], {1: 2}]
ODD_NUMBERS = [np.nan, np.inf, -np.inf, True]


def without(kind, *allowed):
    """The same kind, but for values that are good here."""
    return lambda rng: [
        value for value in kind(rng) if not any(value is a for a in allowed)
    ]


def also(kind, *bad):
    """The same kind, and more values."""
    return lambda rng: [*kind(rng), *bad]


def only(*bad):
    return lambda rng: [*bad]


def strange(*bad):
    return only(*STRANGE, None, 3, *bad)


def positive(rng):
    return [
        *[*STRANGE, *ODD_NUMBERS, None, 0, -1, 0.0],
        -float(rng.exponential(10)),
        -float(10 ** rng.uniform(-30, 30)),
        str(rng.integers(1, 99)),
    ]


def above_one(rng):
    return [1.0 + float(rng.exponential())]


def both(*kinds):
    return lambda rng: [value for kind in kinds for value in kind(rng)]


optional_positive = without(positive, None)
not_negative = without(positive, 0, 0.0)
below_one = both(not_negative, above_one, only(1))
share = both(positive, above_one, only(2))
optional_share = both(without(not_negative, None), above_one)


def whole(least):
    return lambda rng: [
        *[*STRANGE, *ODD_NUMBERS, None, least - 1, least + 0.5, str(least)],
        least - 1 - int(rng.integers(0, 1000)),
        float(rng.uniform(least, least + 100)),
        np.array([least, least]),
    ]


def optional_whole(least):
    return without(whole(least), None)


def value_range(rng):
    low = float(rng.normal(0, 100))
    return [
        *[value for value in STRANGE if value is not STRANGE[9]],
        *[255, True, (low, low), (low, low - float(rng.exponential(9)))],
        *[(low, np.nan), (-np.inf, low), (0, 1, 2), ("a", "b"), (None, 1)],
        [[0, 1]],
    ]


def norm(rng):
    words = ["l1", "L2", "inf", "linf ", "l0", "2"]
    return [*STRANGE, None, True, 0, 1, 3, -np.inf, np.nan, *words]


def from_logits(rng):
    return [*STRANGE, 0, 1, 1.0, "True", np.nan, float(rng.normal())]


def flag(rng):
    return [*STRANGE, None, 2, np.nan, "False", float(rng.normal())]


def zeros(rng, least, most):
    """An array of a size that nothing here has."""
    return np.zeros(rng.integers(1, 7, rng.integers(least, most)).tolist())


def classifier(rng):
    bad = [np.zeros(rng.integers(1, 5, 2)), keras.Sequential, tf.nn.relu]
    return [*STRANGE, None, 3, *bad]


def broken(array, rng):
    """The array with one value that is not finite."""
    array = np.array(array, "float32")
    array.flat[rng.integers(0, array.size)] = rng.choice(
        [np.nan, np.inf, -np.inf]
    )
    return array


def pictures(rng):
    """Batches of images that are none."""
    return [
        *[*STRANGE, None, 3.5, X[:0]],
        *[X.astype(kind) for kind in (str, object, complex)],
        *[broken(X, rng), broken(X, rng)],
    ]


def images(rng):
    """The same, and images of another size."""
    others = [X[0], X[..., :2], X[:, :-1], zeros(rng, 0, 6)]
    return [*pictures(rng), *others]


def wrong_size(rng):
    return [X[..., :2], X[:, :-1], X[:, :, 1:], zeros(rng, 3, 6)]


def perturbation(rng):
    return [
        *[*STRANGE, None, 3.5, zeros(rng, 0, 6), V.astype(complex)],
        *[np.full(models.SHAPE, "a"), np.full(models.SHAPE, None)],
        *[broken(V, rng), broken(V, rng), V[:, :-1], V[..., :1]],
    ]


def numbers(rng):
    bad = [np.array(["a"]), np.array([None]), V.astype(complex)]
    strange = [STRANGE[i] for i in (0, 1, 3, 5, 6, 7, 8, 10)]
    return [*strange, None, *bad]


def mask(rng):
    return [
        *[*STRANGE, 3, np.zeros(models.SHAPE), 1 + zeros(rng, 1, 5)],
        *[np.full(models.SHAPE, "a"), np.full(models.SHAPE, None)],
        np.ones((8, 8, 1, 1)),
    ]


def target(rng):
    return [*optional_whole(0)(rng), 4, 5 + int(rng.integers(0, 10**6))]


def optimizer(rng):
    letters = "".join(rng.choice(list("abcxyz"), 6))
    classes = [keras.optimizers.Lion, keras_uap.DeepFool]
    return [*STRANGE, 3, letters, "deepfool2", *classes]


def labels(rng):
    count = int(rng.integers(5, 99))
    bad = [np.zeros((2, 4)), np.array(["a", "b", "c", "d"])]
    return [*STRANGE[1:], 3, np.zeros(count), *bad]


def groups(rng):
    count = int(rng.integers(5, 99))
    return [*STRANGE, 3, np.arange(count), np.zeros(4), np.zeros((4, 2))]


def hits(rng):
    bad = [np.zeros((3, 2)), np.zeros(0), np.array(["a", "b"])]
    bad += [broken(np.zeros(9), rng), np.array([0, 1, 1j])]
    return [*STRANGE[:9], STRANGE[10], None, 3, *bad]


def whole_sizes(most):
    bad = [(0,), (-1,), (1.5,), ("a",), (np.nan,), (True,)]
    return lambda rng: [
        *strange(*bad)(rng),
        (2, most + 1 + int(rng.integers(99))),
    ]


def perturbations(rng):
    return strange({"a": broken(V, rng)}, {"a": V[..., :1]}, [V, 1])(rng)


def vectors(rng):
    pairs = [[V, V[0]], [V, 0 * V], [V, broken(V, rng)]]
    return [*STRANGE[:8], None, 3, *pairs]


def normals(rng):
    stacks = [np.stack([V, 0 * V]), np.stack([V, broken(V, rng)])]
    return [*STRANGE, None, V[np.newaxis], *stacks]


def card(rng):
    good = {**CARD, "value_range": (0, 1)}
    parts = {"epsilon": positive, "norm": norm, "value_range": value_range}
    return [
        *[*STRANGE[:3], *STRANGE[4:10], None, 3],
        *[{**good, key: bad} for key in parts for bad in parts[key](rng)],
        *[{k: w for k, w in good.items() if k != key} for key in good],
        *[{**good, "note": object()}, {**good, "note": np.nan}],
        {**good, "epsilon": 1e-6},
    ]


def new_perturbation(rng):
    more = [broken(V, rng), V[0, 0], V.astype(complex)]
    return [*STRANGE, *more]


EPSILONS = only(*[*STRANGE[:9], None, 3, (0,), (1, -2.0), (np.nan,), (np.inf,)])
CALLBACKS = [STRANGE[0], *STRANGE[5:], 3, [3], ["abc"], len, [None]]
LOSSES = [
    "mse",
    keras.losses.mean_squared_error,
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    losses.Margin,
]
DATA = also(images, tf.data.Dataset.range(3), iter([1]))
TARGETS = strange([-1], [4], [1.5], ["a"], [99])
RANGES = only({"b": (0, 1)}, {"a": (1, 0)}, 3, "abc")
CHANGES = [[3], [("fade", 1)], [("jpeg",)]] + [
    [(kind, amount)]
    for kind in ("shift", "mirror", "patch", "scale", "crop", "jpeg", "blur")
    for amount in (*STRANGE[:5], None, 0, -1, np.nan, np.inf, True)
]

# What is bad for an argument of a name, unless a row says otherwise.
KINDS = {
    **{"classifier": classifier, "images": images, "held_out": images},
    **{"perturbation": perturbation, "perturbations": perturbations},
    **{"epsilon": positive, "norm": norm, "value_range": value_range},
    **{"epsilons": EPSILONS, "norms": without(EPSILONS, None)},
    "edges": without(EPSILONS, None),
    "changes": only(*without(strange(3), None)(None), *CHANGES),
    **{"mask": mask, "target": target, "targets": TARGETS, "card": card},
    **{"optimizer": optimizer, "loss": strange(*LOSSES)},
    "cap": without(positive, np.inf),
    **{"labels": labels, "groups": groups, "x": DATA, "y": labels},
    **{"hits": hits, "differences": hits, "level": also(share, 1)},
    **{"from_logits": from_logits, "seed": whole(0), "count": whole(2)},
    **{"num_candidates": whole(2), "overshoot": not_negative},
    **{"rate": share, "step_size": optional_positive, "momentum": below_one},
    **{"dims": whole_sizes(12), "sizes": whole_sizes(4), "normals": normals},
    **{"spectrum": only(*STRANGE, None, V), "value_ranges": RANGES},
    **{"kinds": strange({"a": None}, {"a": X[:0]}), "inputs": wrong_size},
    **{"classifiers": strange({"a": 3}), "callbacks": only(*CALLBACKS)},
    **dict.fromkeys(["run_eagerly", "jit_compile", "one_by_one"], flag),
    # Whole numbers from 1.
    **dict.fromkeys(
        ["batch_size", "batches", "dim", "draws", "epochs"], whole(1)
    ),
    **dict.fromkeys(["max_steps", "measure_every", "num_random"], whole(1)),
    **dict.fromkeys(["epochs", "num_seeds", "steps_per_execution"], whole(1)),
    **dict.fromkeys(["every", "pool_size", "steps"], optional_whole(1)),
    **dict.fromkeys(
        ["steps_per_epoch", "validation_steps", "validation_batch_size"],
        optional_whole(1),
    ),
}

# Good calls -------------------------------------------------------------------


@pytest.fixture(scope="module")
def good():
    """Good arguments by name; the classifier must be left as it was."""
    model = models.linear(activation="softmax")
    weights = [w.copy() for w in model.get_weights()]
    found = analysis.boundary_normals(model, models.images(12), verbose=0)
    yield {
        **{"classifier": model, "images": X, "held_out": X, "x": X},
        **{"perturbation": V, "epsilon": 0.1, "rate": 0.5, "verbose": 0},
        **{"path": "/nonexistent/v.npz", "card": CARD, "targets": [1]},
        **{"classifiers": {"a": model}, "perturbations": {"a": V}},
        **{"sizes": (2,), "kinds": {"a": X}, "epsilons": (0.1,)},
        **{"normals": found, "spectrum": analysis.normal_spectrum(found)},
        **{"dims": (2,), "dim": 2, "hits": np.arange(8) % 2},
        "differences": np.arange(8) % 2 - 0.5,
        "uap": keras_uap.UniversalPerturbation(model, 0.1, value_range=(0, 1)),
        "layer": keras_uap.PerturbationLayer(V, value_range=(0, 1)),
    }
    for before, after in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(before, after)


def row(function, names, **kinds):
    """A function, or the name of a method, and the kinds of its arguments."""
    return function, {name: KINDS[name] for name in names.split()} | kinds


MEASURE = "norm value_range seed batch_size from_logits "
FITTING = "classifier epsilon draws " + MEASURE
CALLS = [
    row(
        keras_uap.UniversalPerturbation,
        "classifier epsilon norm value_range target mask from_logits",
    ),
    row("uap.compile", "optimizer loss"),
    row("uap.decaying_lion", "batches"),
    row(
        "uap.fit",
        "x y callbacks steps_per_epoch validation_steps validation_batch_size",
        batch_size=optional_whole(1),
        validation_data=without(DATA, None),
        validation_split=without(below_one, None),
    ),
    row("uap.evaluate", "x y steps", batch_size=optional_whole(1)),
    row("uap.perturb", "", images=wrong_size),
    row("uap.perturbation", "perturbation"),
    row("layer.perturbation", "perturbation"),
    row("layer", "inputs"),
    row(
        keras_uap.PerturbationLayer,
        "norm value_range pool_size step_size",
        epsilon=optional_positive,
        rate=optional_share,
        seed=optional_whole(0),
    ),
    row(
        keras_uap.PerturbationLayer,
        "",
        perturbation=also(new_perturbation, 3.5, np.zeros((1, 1, 8, 8, 3))),
    ),
    row(keras_uap.StopAtFoolingRate, "rate", monitor=strange()),
    row(
        keras_uap.UniversalAdversarialTraining,
        "epsilon every measure_every optimizer loss epochs " + MEASURE,
        images=pictures,
        validation_images=without(pictures, None),
    ),
    row(
        keras_uap.deepfool,
        "classifier images num_candidates overshoot max_steps batch_size "
        "from_logits",
    ),
    row(
        keras_uap.DeepFool,
        "num_candidates overshoot max_steps one_by_one",
        max_steps=optional_whole(1),
        momentum=without(below_one, None),
        step_size=optional_positive,
    ),
    row(keras_uap.project, "epsilon norm", perturbation=numbers),
    row(lp_norm, "norm", perturbation=numbers),
    row(keras_uap.LpBall, "epsilon norm"),
    row(losses.ClippedCrossentropy, "cap"),
    row(losses.Margin, "cap"),
    row(losses.get, "loss"),
    row(keras_uap.logits_function, "classifier from_logits"),
    row(
        interchange.save_perturbation,
        "card",
        perturbation=also(new_perturbation, None, V * 1000),
    ),
    row(analysis.fit_perturbation, FITTING + "images target optimizer"),
    row(
        analysis.fooling_report,
        "classifier perturbation images labels groups num_random " + MEASURE,
    ),
    row(
        analysis.label_flow,
        "classifier perturbation images value_range batch_size from_logits",
    ),
    row(
        analysis.mutual_influence,
        "classifier perturbation images groups num_candidates " + MEASURE,
        increments=without(both(pictures, wrong_size), None),
    ),
    row(
        analysis.label_dominance,
        "classifier perturbation images groups " + MEASURE,
    ),
    row(
        analysis.dominance_history,
        FITTING + "images held_out num_seeds groups",
        loss=without(KINDS["loss"], None),
        random_start=flag,
        fit_batch_size=whole(1),
    ),
    row(
        analysis.feature_collapse,
        "classifier perturbation images groups " + MEASURE,
    ),
    row(analysis.target_rates, FITTING + "images held_out targets groups"),
    row(
        analysis.transfer_matrix,
        "classifiers perturbations groups value_ranges " + MEASURE,
        images=pictures,
    ),
    row(
        analysis.perturbation_diversity,
        FITTING + "images count",
        held_out=without(images, None),
    ),
    row(analysis.inner_products, "", perturbations=vectors),
    row(
        analysis.sample_size_curve,
        FITTING + "images held_out sizes num_seeds groups",
    ),
    row(analysis.image_kinds, FITTING + "kinds held_out num_seeds groups"),
    row(analysis.epsilon_curve, "epsilons num_seeds groups draws " + MEASURE),
    row(
        analysis.baseline_rates,
        "classifier perturbation images held_out norms groups " + MEASURE,
    ),
    row(
        analysis.boundary_normals,
        "classifier images num_candidates max_steps batch_size from_logits",
    ),
    row(analysis.normal_spectrum, "normals seed"),
    row(
        analysis.subspace_fooling,
        "classifier spectrum images dims groups epsilon num_random " + MEASURE,
    ),
    row(
        analysis.subspace_perturbation,
        "spectrum images dim epsilon norm value_range",
    ),
    row(
        analysis.perturbation_spectrum,
        "classifier perturbation images edges groups num_random " + MEASURE,
    ),
    row(
        analysis.survival_rates,
        "classifier perturbation images changes groups " + MEASURE,
    ),
    row(analysis.rate_interval, "hits groups level"),
    row(analysis.difference_interval, "differences groups level"),
]
ROWS = [
    pytest.param(
        function,
        kinds,
        name,
        id=f"{getattr(function, '__name__', function)}-{name}",
    )
    for function, kinds in CALLS
    for name in kinds
]

# Other words by which a message may name an argument.
ALIASES = {
    "x": ["x ", "images", "x_"],
    "images": ["images", "input 0", "input shape"],
    "inputs": ["images", "inputs"],
    "validation_data": ["validation_data", "images"],
    "value_ranges": ["value_range"],
    "y": ["label", "y "],
    "spectrum": ["spectrum", "normals"],
    "held_out": ["held_out", "held-out"],
}
SINGULAR = "normals targets labels groups classifiers norms perturbations "
SINGULAR += "sizes epsilons dims kinds"
ALIASES |= {name: [name[:-1]] for name in SINGULAR.split()}


def good_call(function, kinds, good):
    """The function with good arguments for all that it must be given."""
    if isinstance(function, str):
        owner, _, name = function.partition(".")
        function = good[owner]
        if name == "perturbation":  # Is set, not called.
            return lambda perturbation: setattr(good[owner], name, perturbation)
        if name:
            function = getattr(function, name)
    needed = {
        name: good[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if name in good
        and (
            parameter.default is parameter.empty
            or name in kinds
            or name == "verbose"
        )
    }
    return partial(function, **needed)


@pytest.mark.parametrize(
    ("function", "kinds", "name"),
    ROWS,
    ids=lambda part: getattr(part, "__name__", "") or str(part)[:30],
)
def test_refused_by_name(function, kinds, name, good, rng, quick, count):
    called, wrong = good_call(function, kinds, good), []
    for _ in range(1 if quick else 3):
        for value in kinds[name](rng):
            count("bad calls tried")
            problem = problem_of(called, name, value)
            count("refused by name", int(problem is None))
            if problem is not None:
                kind = type(value).__name__
                wrong.append(f"{str(value)[:40]!r} of {kind} {problem}")
    assert not wrong, "\n".join(dict.fromkeys(wrong))


def problem_of(function, name, value):
    """Says what is wrong with the answer to a bad argument, or None."""
    try:
        with time_limit(20):
            function(**{name: value})
    except (ValueError, TypeError) as error:
        said = str(error).lower()
        if any(word in said for word in ALIASES.get(name, [name])):
            return None
        return f"is not named: {type(error).__name__} {said[:200]}"
    except (Exception, Hang) as error:
        return f"raised {type(error).__name__}: {str(error)[:200]}"
    return "was accepted"
