"""Measurements that find perturbations: diversity, sample size, baselines."""

import random

import keras
import numpy as np
import pytest
from models import SHAPE

from keras_uap import analysis
from keras_uap.perturbations.lp_ball import lp_norm

SMALL = {"epsilon": 0.1, "value_range": (0, 1), "draws": 40, "verbose": 0}


def test_inner_products_of_known_angles():
    a = np.array([1.0, 0.0, 0.0])
    b = np.array([1.0, np.sqrt(3.0), 0.0]) * 7
    products = analysis.inner_products([a, b, -a])
    np.testing.assert_allclose(
        products, [[1, 0.5, -1], [0.5, 1, -0.5], [-1, -0.5, 1]], atol=1e-6
    )
    with pytest.raises(ValueError, match="zeros at index 1"):
        analysis.inner_products([a, 0 * a])
    with pytest.raises(ValueError, match="one shape"):
        analysis.inner_products([a, a[:2]])


def test_fit_perturbation_is_told_by_its_seed(linear, images):
    model = linear()
    first = analysis.fit_perturbation(model, images, seed=3, **SMALL)
    again = analysis.fit_perturbation(model, images, seed=3, **SMALL)
    other = analysis.fit_perturbation(model, images, seed=4, **SMALL)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert lp_norm(first) <= 0.1
    with pytest.raises(ValueError, match="draws"):
        analysis.fit_perturbation(model, images, draws=0)


@pytest.mark.parametrize(
    ("asked", "optimizer"),
    [
        ({}, keras.optimizers.SGD),  # DeepFool's.
        ({"target": 1}, keras.optimizers.Lion),
        ({"norm": "linf"}, keras.optimizers.Lion),
        pytest.param(
            {"norm": "linf", "optimizer": "deepfool"},
            keras.optimizers.SGD,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_finds_a_perturbation_if_nothing_is_said(
    asked, optimizer, linear, images
):
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append(spy.model.optimizer)
    )
    arguments = SMALL | {"norm": "l2", "callbacks": [spy]} | asked
    analysis.fit_perturbation(linear(), images, **arguments)
    assert [type(each) for each in seen] == [optimizer]


def test_fit_perturbation_takes_few_of_many(linear, images, monkeypatch):
    seen = []
    fit = keras.Model.fit

    def spy(self, x, *args, **kwargs):
        seen.append((len(list(x)), kwargs["epochs"]))
        return fit(self, x, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", spy)
    for count in (16, 40):
        analysis.fit_perturbation(
            linear(),
            images[:count],
            value_range=(0, 1),
            draws=32,
            batch_size=8,
        )
    assert seen == [(2, 2), (4, 1)]


@pytest.mark.slow
def test_diversity(linear, images, held_out):
    result = analysis.perturbation_diversity(
        linear(), images, held_out, count=2, **SMALL
    )
    assert result.inner_products.shape == (2, 2)
    np.testing.assert_allclose(np.diag(result.inner_products), 1.0)
    assert result.largest < 1.0
    assert result.perturbations.shape == (2, *SHAPE)
    assert result.fooling_rates.shape == (2,)
    assert "perturbations" not in result.to_dict()
    with pytest.raises(ValueError, match="at least 2"):
        analysis.perturbation_diversity(linear(), images, count=1)


def test_diversity_of_a_fit_of_ones_own(linear, images):
    vectors = np.eye(3).reshape(3, 3, 1)

    def fit(images, epsilon, seed):
        return epsilon * vectors[seed]

    result = analysis.perturbation_diversity(
        linear(), images, count=3, fit=fit, verbose=0
    )
    np.testing.assert_allclose(result.inner_products, np.eye(3))
    assert result.fooling_rates is None


def test_sample_size_shows_what_the_fit_is_given(linear, images, held_out):
    given = []

    def fit(images, epsilon, seed):
        given.append((len(images), epsilon, seed))
        return np.full(SHAPE, epsilon * len(images) / 40)

    model = linear()
    result = analysis.sample_size_curve(
        model,
        images,
        held_out,
        sizes=(1, 20, 40),
        num_seeds=2,
        groups=np.arange(24) // 3,
        fit=fit,
        epsilon=0.9,
        value_range=(0, 1),
        seed=5,
        verbose=0,
    )
    assert given == [(n, 0.9, s) for n in (1, 20, 40) for s in (5, 6)]
    assert result.values == (1, 20, 40)
    assert result.fooling_rates.shape == (3, 2)
    for size, rates in zip(result.values, result.fooling_rates):
        v = np.full(SHAPE, 0.9 * size / 40)
        report = analysis.fooling_report(
            model, v, held_out, value_range=(0, 1), verbose=0
        )
        np.testing.assert_allclose(rates, report.fooling_rate)
    assert result.num_groups == 8
    assert np.ptp(result.random_rates) == 0
    with pytest.raises(ValueError, match="sizes"):
        analysis.sample_size_curve(linear(), images, held_out, sizes=(41,))
    with pytest.raises(ValueError, match="num_seeds"):
        analysis.sample_size_curve(
            linear(), images, held_out, sizes=(4,), num_seeds=0
        )
    given.clear()
    with pytest.raises(ValueError, match="above 0"):
        analysis.sample_size_curve(
            linear(), images, held_out, sizes=(4,), fit=fit, epsilon=-1.0
        )
    assert not given


def test_kinds_of_images(linear, images, held_out):
    noise = np.random.default_rng(0).uniform(size=(20, *SHAPE))
    result = analysis.image_kinds(
        linear(),
        {"photographs": images, "noise": noise},
        held_out,
        fit=lambda images, epsilon, seed: np.full(SHAPE, epsilon),
        **SMALL,
    )
    assert result.values == ("photographs", "noise")
    assert result.fooling_rates.shape == (2, 1)
    with pytest.raises(ValueError, match=r"kinds\['none'\]"):
        analysis.image_kinds(linear(), {"none": images[:0]}, held_out)


@pytest.mark.slow
def test_a_larger_ball_fools_more(linear, images, held_out):
    small = {**SMALL}
    small.pop("epsilon")
    result = analysis.epsilon_curve(
        linear(), images, held_out, epsilons=(0.01, 0.3), **small
    )
    assert result.fooling_rates[1, 0] > result.fooling_rates[0, 0]
    with pytest.raises(ValueError, match="above 0"):
        analysis.epsilon_curve(linear(), images, held_out, epsilons=(0.0,))


@pytest.mark.parametrize(
    "norm", ["l2", pytest.param("linf", marks=pytest.mark.slow)]
)
def test_baselines(linear, images, held_out, norm):
    model = linear()
    v = 0.1 * np.sign(np.random.default_rng(0).normal(size=SHAPE))
    result = analysis.baseline_rates(
        model,
        v,
        images,
        held_out,
        norm=norm,
        groups=np.arange(24) // 3,
        value_range=(0, 1),
        verbose=0,
    )
    assert result.names[0] == "universal"
    assert result.fooling_rates.shape == (5, 4)
    assert result.norms[2] == pytest.approx(lp_norm(v, norm))
    report = analysis.fooling_report(
        model, v, held_out, norm=norm, value_range=(0, 1), verbose=0
    )
    assert result.fooling_rates[0, 2] == pytest.approx(report.fooling_rate)


def test_baselines_of_known_directions(images):
    # Only the first pixel counts, so the sum of increments is all that moves.
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    kernel = np.zeros((192, 2))
    kernel[0, 1] = 1.0
    model.set_weights([kernel, np.array([0.0, -2.0])])
    v, increments = np.zeros(SHAPE), np.zeros((40, *SHAPE))
    v[7, 7, 2] = 1.0
    increments[3, 0, 0, 0] = 1.0
    result = analysis.baseline_rates(
        model,
        v,
        images,
        images,
        norms=[5.0],
        increments=increments,
        value_range=None,
        verbose=0,
    )
    rates = dict(zip(result.names, result.fooling_rates[:, 0]))
    assert rates["universal"] == 0.0
    assert rates["sum of adversarial"] == 1.0
    assert rates["one image's adversarial"] == 1.0
    with pytest.raises(ValueError, match="norms must be"):
        analysis.baseline_rates(model, v, images, images, norms=[0.0])
    with pytest.raises(ValueError, match="all increments are zero"):
        analysis.baseline_rates(
            model, v, images, images, increments=0 * increments
        )


def test_held_out_images_of_another_shape_are_told_at_once(linear, images):
    def fit(*_):
        raise AssertionError("no fit may begin")

    other = images[:, :4]
    with pytest.raises(ValueError, match="shape of those to fit on"):
        analysis.sample_size_curve(linear(), images, other, (1,), fit=fit)
    with pytest.raises(ValueError, match="shape of those to fit on"):
        analysis.perturbation_diversity(linear(), images, other, fit=fit)
    with pytest.raises(ValueError, match="shape of those to fit on"):
        analysis.target_rates(linear(), images, other, [0])
    with pytest.raises(ValueError, match="shape of those to fit on"):
        analysis.baseline_rates(linear(), images[0], images, other)


@pytest.mark.parametrize(
    "kind", ["linear", pytest.param("subclassed", marks=pytest.mark.slow)]
)
def test_global_random_numbers_are_left_alone(
    kind, linear, subclassed, images, held_out
):
    classifier = linear() if kind == "linear" else subclassed()
    classifier(images[:1])
    state = random.getstate()
    analysis.target_rates(classifier, images, held_out, [0], **SMALL)
    assert hash(random.getstate()) == hash(state)
