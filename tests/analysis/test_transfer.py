import keras
import numpy as np
import pytest

from keras_uap import analysis

SHAPE = (4, 4, 1)


def brightness(shape=SHAPE, middle=0.5, name=None):
    """Class 1 where the mean pixel is above `middle`."""
    size = int(np.prod(shape))
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)],
        name=name,
    )
    kernel = np.stack([np.zeros(size), np.full(size, 1 / size)], axis=1)
    model.set_weights([kernel, np.array([0.0, -middle])])
    return model


@pytest.fixture
def flat():
    """Ten flat images, of brightness 0.05, 0.15, ... 0.95."""
    levels = np.arange(0.05, 1.0, 0.1, dtype="float32")
    return np.ones((10, *SHAPE), "float32") * levels.reshape(-1, 1, 1, 1)


def test_known_rates(flat):
    # A perturbation of +0.2 moves 0.35 and 0.45 over the middle.
    result = analysis.transfer_matrix(
        {"half": brightness(), "low": brightness(middle=0.21)},
        {"up": np.full(SHAPE, 0.2), "none": np.zeros(SHAPE)},
        flat,
        value_range=(0, 1),
        verbose=0,
    )
    np.testing.assert_allclose(result.fooling_rates, [[0.2, 0.2], [0, 0]])
    assert result.classifiers == ("half", "low")
    assert result.perturbations == ("up", "none")
    np.testing.assert_allclose(result.epsilons, [0.2, 0.0], rtol=1e-6)
    assert not result.resized.any()
    assert (result.random_rates[1] == 0).all()
    assert result.to_dict()["fooling_rates"] == result.fooling_rates.tolist()


def test_another_size_is_resized_and_marked(flat):
    result = analysis.transfer_matrix(
        {"same": brightness(), "larger": brightness((9, 7, 1))},
        {"up": np.full(SHAPE, 0.2)},
        flat,
        value_range=(0, 1),
        verbose=0,
    )
    np.testing.assert_allclose(result.fooling_rates, [[0.2, 0.2]])
    assert result.resized.tolist() == [[False, True]]


def test_another_range_is_stretched(flat):
    result = analysis.transfer_matrix(
        {"unit": brightness(), "bytes": brightness(middle=127.5)},
        [np.full(SHAPE, 0.2)],
        flat,
        value_range=(0, 1),
        value_ranges={"bytes": (0, 255)},
        verbose=0,
    )
    np.testing.assert_allclose(result.fooling_rates, [[0.2, 0.2]])
    with pytest.raises(ValueError, match="names of classifiers"):
        analysis.transfer_matrix(
            {"a": brightness()},
            [np.zeros(SHAPE)],
            flat,
            value_ranges={"b": (0, 1)},
        )


def test_sequences_take_the_models_names(flat):
    models = [brightness(name="first"), brightness(name="second")]
    vs = [np.zeros(SHAPE), np.full(SHAPE, 0.2)]
    result = analysis.transfer_matrix(
        models, vs, flat, value_range=(0, 1), verbose=0
    )
    assert result.perturbations == result.classifiers == ("first", "second")
    with pytest.raises(ValueError, match="different names"):
        analysis.transfer_matrix([models[0]] * 2, vs, flat)


def test_intervals_respect_photographs(flat):
    images = np.repeat(flat, 6, axis=0)
    arguments = {
        "classifiers": [brightness()],
        "perturbations": [np.full(SHAPE, 0.2)],
        "images": images,
        "value_range": (0, 1),
        "verbose": 0,
    }
    alone = analysis.transfer_matrix(**arguments)
    grouped = analysis.transfer_matrix(
        groups=np.repeat(np.arange(10), 6), **arguments
    )
    assert (grouped.num_images, grouped.num_groups) == (60, 10)
    width = np.diff(grouped.intervals).item()
    assert width > 1.5 * np.diff(alone.intervals).item()


def test_refuses(flat):
    with pytest.raises(ValueError, match="at least one"):
        analysis.transfer_matrix({}, [np.zeros(SHAPE)], flat)
    with pytest.raises(ValueError, match="channels"):
        analysis.transfer_matrix([brightness()], [np.zeros((4, 4, 3))], flat)
    with pytest.raises(TypeError, match="Keras model"):
        analysis.transfer_matrix({"f": len}, [np.zeros(SHAPE)], flat)


def test_refuses_to_guess_the_range_of_the_images(flat):
    arguments = ({"a": brightness()}, {"up": np.full(SHAPE, 0.2)}, flat)
    with pytest.raises(ValueError, match="value_range of the images"):
        analysis.transfer_matrix(
            *arguments,
            value_range=None,
            value_ranges={"a": (0, 255)},
            verbose=0,
        )
    for value_ranges in (None, {}, {"a": None}):
        result = analysis.transfer_matrix(
            *arguments, value_range=None, value_ranges=value_ranges, verbose=0
        )
        np.testing.assert_allclose(result.fooling_rates, [[0.2]])
