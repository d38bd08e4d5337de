"""Every kind of images and of perturbations goes wherever one does."""

import keras
import models
import numpy as np
import pytest
import tensorflow as tf

import keras_uap
from keras_uap import analysis, datasets, interchange, visualization
from keras_uap.data.pictures import as_array
from keras_uap.evaluation import audit
from keras_uap.reporting.result import Result

QUIET = {"value_range": (0, 1), "verbose": 0}
FIT = {**QUIET, "epsilon": 0.05, "draws": 16}


def by_hand(images, epsilon, seed):
    """In place of a fit: a perturbation that says which images it is of."""
    return epsilon * np.sign(np.mean(images, axis=0) - 0.5 - 0.01 * seed)


BY_HAND = {**QUIET, "epsilon": 0.05, "fit": by_hand}


class Sequence(keras.utils.PyDataset):
    """Batches of 7 images, each with its labels."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return -(-len(self.images) // 7)

    def __getitem__(self, index):
        images = self.images[7 * index : 7 * index + 7]
        return images, np.zeros(len(images), int)


IMAGES = {
    "list": list,
    "tensor": tf.constant,
    "data": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(7),
    "pairs": lambda x: tf.data.Dataset.from_tensor_slices(
        (x, np.zeros(len(x), int))
    ).batch(7),
    "sequence": Sequence,
    "pictures": datasets.Pictures,
}


def classifier():
    return models.cnn()


def v():
    rng = np.random.default_rng(3)
    return rng.uniform(-0.05, 0.05, models.SHAPE).astype("float32")


def spectrum(model):
    x = models.images(20)
    rng = np.random.default_rng(0)
    return analysis.normal_spectrum(rng.normal(size=x.shape))


def _reports(result):
    values = result.to_dict()
    # Labels that come along add error rates.
    return {
        name: value
        for name, value in values.items()
        if "error_rate" not in name and "second" not in name
    }


# Functions of a classifier, images to fit on and images to measure on.
FUNCTIONS = {
    "deepfool": lambda c, x, h: keras_uap.deepfool(c, x, verbose=0)._asdict(),
    "evaluate": lambda c, x, h: _evaluated(c, x),
    "fit": lambda c, x, h: _fitted(c, x, h),
    "stop": lambda c, x, h: _stopped(c, x),
    "fit_perturbation": lambda c, x, h: analysis.fit_perturbation(c, x, **FIT),
    "baseline_rates": lambda c, x, h: analysis.baseline_rates(
        c, v(), x, h, **QUIET
    ),
    "boundary_normals": lambda c, x, h: analysis.boundary_normals(
        c, x, verbose=0
    ),
    "mutual_influence": lambda c, x, h: analysis.mutual_influence(
        c, v(), x, **QUIET
    ),
    "label_dominance": lambda c, x, h: analysis.label_dominance(
        c, v(), x, **QUIET
    ),
    "dominance_history": lambda c, x, h: analysis.dominance_history(
        c, x, h, 1, **FIT
    ),
    "feature_collapse": lambda c, x, h: analysis.feature_collapse(
        c, v(), x, **QUIET
    ),
    "label_flow": lambda c, x, h: analysis.label_flow(c, v(), x, **QUIET),
    "target_rates": lambda c, x, h: analysis.target_rates(c, x, h, [1], **FIT),
    "fooling_report": lambda c, x, h: analysis.fooling_report(
        c, v(), x, **QUIET
    ),
    "epsilon_curve": lambda c, x, h: analysis.epsilon_curve(
        c, x, h, (0.05,), fit=by_hand, **QUIET
    ),
    "image_kinds": lambda c, x, h: analysis.image_kinds(
        c, {"x": x}, h, **BY_HAND
    ),
    "sample_size_curve": lambda c, x, h: analysis.sample_size_curve(
        c, x, h, (8,), 1, **BY_HAND
    ),
    "perturbation_diversity": lambda c, x, h: analysis.perturbation_diversity(
        c, x, h, 2, **BY_HAND
    ),
    "subspace_fooling": lambda c, x, h: analysis.subspace_fooling(
        c, spectrum(c), x, (5,), epsilon=1.0, num_random=1, **QUIET
    ),
    "subspace_perturbation": lambda c, x, h: analysis.subspace_perturbation(
        c, spectrum(c), x, 5, epsilon=1.0, steps=2, **QUIET
    ),
    "perturbation_spectrum": lambda c, x, h: analysis.perturbation_spectrum(
        c, v(), x, num_random=1, **QUIET
    ),
    "survival_rates": lambda c, x, h: analysis.survival_rates(
        c, v(), x, **QUIET
    ),
    "transfer_matrix": lambda c, x, h: analysis.transfer_matrix(
        [c], [v()], x, **QUIET
    ),
    "plot_perturbation": lambda c, x, h: _texts(
        visualization.plot_perturbation(c, v(), x, (0, 1))
    ),
}


def _texts(figure):
    return [axes.get_title() for axes in figure.axes]


def _uap(c):
    uap = keras_uap.UniversalPerturbation(c, 0.05, value_range=(0, 1))
    uap.build((None, *models.SHAPE))
    uap.seed_generator.state.assign([1, 0])
    return uap


def _evaluated(c, x):
    uap = _uap(c)
    uap.perturbation = v()
    return uap.evaluate(x, verbose=0, return_dict=True)["fooling_rate"]


def _fitted(c, x, h):
    uap = _uap(c)
    uap.compile("lion")
    uap.fit(x, batch_size=7, shuffle=False, validation_data=h, verbose=0)
    return uap.best_rate.numpy()


def _stopped(c, x):
    uap = _uap(c)
    uap.perturbation = v()
    stop = keras_uap.StopAtFoolingRate(0.99, x)
    uap.fit(models.images(8), verbose=0, callbacks=[stop])
    return uap.perturbation


def _plain(result):
    if isinstance(result, Result):
        return _reports(result)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_kind_of_images_gives_what_the_array_gives(name):
    """The six kinds take turns."""
    c = classifier()
    x, h = models.images(20), models.images(20, 2)
    expected = _plain(FUNCTIONS[name](c, x, h))
    kind = list(IMAGES)[list(FUNCTIONS).index(name) % len(IMAGES)]
    found = _plain(FUNCTIONS[name](c, IMAGES[kind](x), IMAGES[kind](h)))
    if name == "fit":  # Batches of another size.
        assert 0 <= found <= 1
        return
    keras.tree.map_structure(np.testing.assert_equal, expected, found)


def test_all_public_functions_of_images_are_tried():
    takers = {
        name
        for name, value in vars(analysis).items()
        if callable(value)
        and not isinstance(value, type)
        and "images" in value.__code__.co_varnames[: value.__code__.co_argcount]
    }
    assert takers <= set(FUNCTIONS)


@pytest.mark.parametrize("kind", ["data", "pairs", "sequence", "pictures"])
def test_audit_takes_every_kind_of_images(kind):
    x = models.images(30)
    expected = audit.as_pictures(classifier(), x, None, (0, 1))
    found = audit.as_pictures(classifier(), IMAGES[kind](x), None, (0, 1))
    np.testing.assert_array_equal(expected.images, found.images)
    assert (found.labels is not None) == (kind in ("pairs", "sequence"))


def test_groups_and_labels_come_along():
    x = models.images(20)
    groups, labels = np.arange(20) // 2, np.zeros(20, int)
    report = analysis.fooling_report(
        classifier(),
        v(),
        datasets.Pictures(x, labels=labels, groups=groups),
        **QUIET,
    )
    assert report.num_groups == 10
    assert report.error_rate is not None


@pytest.mark.parametrize(
    ("images", "error", "text"),
    [
        (None, TypeError, "images must be an array of numbers"),
        ("photos", TypeError, "images must be an array of numbers"),
        (np.zeros((0, 8, 8, 3)), ValueError, "at least one image"),
        (
            tf.data.Dataset.from_tensor_slices(np.zeros((0, 8, 8, 3))),
            ValueError,
            "images is empty",
        ),
        (
            tf.data.Dataset.from_tensors(np.zeros((2, 8, 8, 3))).repeat(),
            ValueError,
            r"without an end. Pass images.take\(count\)",
        ),
        (
            tf.data.Dataset.from_tensors(np.full((2, 8, 8, 3), np.nan)),
            ValueError,
            "must be finite",
        ),
        (
            tf.data.Dataset.from_tensors([["a", "b"]]),
            TypeError,
            "images must be an array of numbers",
        ),
    ],
)
def test_images_that_are_none_are_refused(images, error, text):
    with pytest.raises(error, match=text):
        keras_uap.deepfool(classifier(), images, verbose=0)


def _slices(*columns):
    return tf.data.Dataset.from_tensor_slices(columns)


def _ragged():
    x = tf.RaggedTensor.from_tensor(models.images(8), ragged_rank=2)
    return tf.data.Dataset.from_tensor_slices(x).batch(4)


X, Y = models.images(8), np.zeros(8, "int64")
# Data that is easily passed by mistake: what the error must say.
MISTAKES = {
    "not batched": (lambda: _slices(X, Y), r"\.batch\(32\)"),
    "not batched, no labels": (
        lambda: tf.data.Dataset.from_tensor_slices(X),
        r"\.batch\(32\)",
    ),
    "dictionaries": (
        lambda: tf.data.Dataset.from_tensor_slices(
            {"image": X, "label": Y}
        ).batch(4),
        "as_supervised=True",
    ),
    "ragged": (_ragged, r"RaggedTensor.*resize images before \.batch"),
    "two images": (
        lambda: _slices((X, X), Y).batch(4),
        "Received: tuple",
    ),
    "no channels": (
        lambda: X[..., 0],
        r"images\[..., np\.newaxis\]|channels",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_mistakes_with_data_are_said(name, mistake):
    make, says = MISTAKES[mistake]
    grey = mistake == "no channels"
    if grey and name in ("evaluate", "fit", "stop"):
        pytest.skip("These are of images of three channels.")
    if name == "transfer_matrix":
        says += "|as many channels as the images"
    c = models.linear(shape=(8, 8, 1)) if grey else models.linear()
    with pytest.raises((TypeError, ValueError), match=says):
        FUNCTIONS[name](c, make(), make())


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_with_data_are_said_by_audits_and_trainings(mistake):
    make, says = MISTAKES[mistake]
    shape = (8, 8, 1) if mistake == "no channels" else models.SHAPE

    def distill():
        c = models.linear(shape=shape)
        made = keras_uap.AdversarialDistiller(c, 0.05, value_range=(0, 1))
        made.compile("sgd")
        made.fit(make(), verbose=0)

    calls = [
        lambda c: keras_uap.audit(c, make(), **QUIET),
        lambda c: keras_uap.harden(c, make(), **QUIET),
        lambda c: distill(),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=says):
            call(models.linear(shape=shape))


# Perturbations --------------------------------------------------------------


def _saved(folder, kind):
    uap = _uap(models.cnn())
    uap.perturbation = v()
    if kind == "model":
        return uap
    if kind == "layer":
        return keras_uap.PerturbationLayer(v(), value_range=(0, 1))
    if kind == "keras":
        uap.save(folder / "uap.keras")
        return str(folder / "uap.keras")
    card = {"epsilon": 0.05, "norm": "linf", "value_range": (0, 1)}
    return interchange.save_perturbation(folder / "uap.npz", v(), card)


PERTURBED = {
    "layer": lambda c, p, x: (
        keras_uap.PerturbationLayer(p, value_range=(0, 1)).perturbation
    ),
    "initial": lambda c, p, x: (
        keras_uap.UniversalPerturbation(
            c, 0.05, value_range=(0, 1), initial_perturbation=p
        ).perturbation
    ),
    "resize": lambda c, p, x: keras_uap.resize_perturbation(p, 6),
    "report": lambda c, p, x: analysis.fooling_report(c, p, x, **QUIET),
    "flow": lambda c, p, x: analysis.label_flow(c, p, x, **QUIET),
    "baselines": lambda c, p, x: analysis.baseline_rates(c, p, x, x, **QUIET),
    "spectrum": lambda c, p, x: analysis.perturbation_spectrum(
        c, p, x, num_random=1, **QUIET
    ),
    "survival": lambda c, p, x: analysis.survival_rates(
        c, p, x, [("shift", 1), ("jpeg", 75)], **QUIET
    ),
    "transfer": lambda c, p, x: analysis.transfer_matrix(
        {"c": c}, {"p": p}, x, **QUIET
    ),
    "inner": lambda c, p, x: analysis.inner_products([p, v()]),
    "plot": lambda c, p, x: _texts(
        visualization.plot_perturbation(c, p, x, (0, 1))
    ),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "model") for name in PERTURBED]
    + [("report", kind) for kind in ("layer", "keras", "npz")],
)
def test_every_kind_of_perturbation_gives_what_the_array_gives(
    name, kind, tmp_path
):
    c, x = models.linear(), models.images(12)
    expected = _plain(PERTURBED[name](c, v(), x))
    found = _plain(PERTURBED[name](c, _saved(tmp_path, kind), x))
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_equal(a, b), expected, found
    )


def test_a_perturbation_of_another_pixel_range_is_refused(tmp_path):
    for kind in ("model", "keras", "npz"):
        with pytest.raises(ValueError, match="another pixel range"):
            keras_uap.PerturbationLayer(_saved(tmp_path, kind))


def test_files_that_are_no_perturbation_are_refused(tmp_path):
    with pytest.raises(ValueError, match="file that exists"):
        keras_uap.PerturbationLayer(tmp_path / "none.npz")
    models.cnn().save(tmp_path / "cnn.keras")
    with pytest.raises(ValueError, match="holds a Sequential"):
        keras_uap.PerturbationLayer(tmp_path / "cnn.keras")
    (tmp_path / "text.npz").write_text("v")
    with pytest.raises(ValueError, match="not a perturbation saved by"):
        keras_uap.PerturbationLayer(tmp_path / "text.npz")


# Generators -----------------------------------------------------------------


@pytest.mark.slow
def test_a_generator_that_begins_anew_is_read_in_every_epoch():
    x = models.images(12)
    data = tf.data.Dataset.from_generator(
        lambda: iter(np.array_split(x, 3)),
        output_signature=tf.TensorSpec((None, *x.shape[1:]), "float32"),
    )
    found = []
    for each in (data, tf.data.Dataset.from_tensor_slices(x).batch(4)):
        uap = _uap(models.cnn())
        uap.fit(each, epochs=3, verbose=0)
        found.append(uap.perturbation)
    np.testing.assert_array_equal(*found)


def test_of_a_data_set_only_what_is_shown_is_read():
    x = models.images(4)
    data = tf.data.Dataset.from_tensors(x).repeat()
    assert len(as_array(data, most=6)) == 6


# Heads and averages ---------------------------------------------------------


@pytest.mark.slow
def test_a_head_that_is_another_is_found_on_the_first_images():
    x = models.images(24)
    c = models.linear(activation="softmax")
    dense = c.layers[-1]
    # A `call` of this one layer's own, which no type tells of.
    dense.call = lambda inputs, **_: keras.ops.softmax(
        -keras.ops.matmul(inputs, dense.kernel) - dense.bias
    )
    for use in ("fit", "evaluate"):
        uap = _uap(c)
        getattr(uap, use)(x, verbose=0)
        labels = uap.adapter.labels(x)
        np.testing.assert_array_equal(labels, c.predict(x, verbose=0).argmax(1))


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "swap"), [("linf", True), ("l2", False)])
def test_a_layer_stays_in_its_ball_under_averages(norm, swap):
    x = models.images(24)
    layer = keras_uap.PerturbationLayer(
        epsilon=0.3, norm=norm, value_range=(0, 1)
    )
    training = keras.Sequential(
        [keras.Input(models.SHAPE), layer, models.cnn()]
    )
    training.compile(
        keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5),
        "sparse_categorical_crossentropy",
    )
    callbacks = [keras.callbacks.SwapEMAWeights()] if swap else []
    for _ in range(3):
        training.fit(
            x,
            np.arange(24) % 4,
            batch_size=4,
            epochs=2,
            verbose=0,
            callbacks=callbacks,
        )
        v = layer.perturbation
        assert v.any()
        assert layer.ball.norm_of(v[np.newaxis]) <= 0.3
