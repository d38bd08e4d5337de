import keras
import models
import numpy as np
import pytest
from models import SHAPE

from keras_uap import analysis
from keras_uap.perturbations.lp_ball import lp_norm


def plane(normal, offset=0.0):
    """A two-class linear classifier with a known boundary."""
    model = keras.Sequential(
        [
            keras.Input(normal.shape),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    kernel = np.stack([np.zeros(normal.size), normal.ravel()], axis=1)
    model.set_weights([kernel, np.array([0.0, offset])])
    return model


@pytest.fixture
def rank_three():
    """60 unit normals in a space of 3 dimensions, and its basis."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(192, 3)))
    coordinates = rng.normal(size=(60, 3)) * [3.0, 2.0, 1.0]
    coordinates /= np.linalg.norm(coordinates, axis=1, keepdims=True)
    return (coordinates @ basis.T).reshape(60, *SHAPE), basis, coordinates


def test_normals_of_a_linear_classifier_are_its_weights(images):
    normal = np.random.default_rng(0).normal(size=SHAPE)
    offset = -float((normal * images.mean(axis=0)).sum())
    found = analysis.boundary_normals(plane(normal, offset), images, verbose=0)
    unit = (normal / np.linalg.norm(normal)).ravel()
    flat = found.normals.reshape(len(found.normals), -1)
    np.testing.assert_allclose(np.abs(flat @ unit), 1.0, atol=1e-5)
    distances = np.abs(images.reshape(40, -1) @ normal.ravel() + offset)
    np.testing.assert_allclose(
        found.distances,
        distances[found.indices] / np.linalg.norm(normal),
        rtol=1e-3,
    )
    assert found.num_images == 40


def test_two_linear_classifiers_at_a_known_angle(images):
    # Two normals of 60 degrees: Gram eigenvalues are 1 + cos and 1 - cos.
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(192, 2)))
    angles = [0.0, np.pi / 3]
    normals = [(basis @ [np.cos(a), np.sin(a)]).reshape(SHAPE) for a in angles]
    found = []
    for normal in normals:
        offset = -float((normal * images[0]).sum()) - 0.1
        result = analysis.boundary_normals(
            plane(normal, offset), images[:1], verbose=0
        )
        found.append(result.normals[0])
    products = analysis.inner_products(found)
    assert products[0, 1] == pytest.approx(0.5, abs=1e-4)
    spectrum = analysis.normal_spectrum(np.stack(found))
    np.testing.assert_allclose(
        spectrum.singular_values, [np.sqrt(1.5), np.sqrt(0.5)], rtol=1e-4
    )


@pytest.mark.slow
def test_images_that_do_not_cross_are_left_out(broken, images):
    model = broken(0.0, float(np.median(images[:, 0, 0, 0])))
    found = analysis.boundary_normals(model, images, verbose=0)
    assert 0 < len(found.normals) < 40
    assert len(found.normals) == len(found.indices) == len(found.distances)
    np.testing.assert_allclose(
        np.linalg.norm(found.normals.reshape(len(found.normals), -1), axis=1),
        1.0,
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="over a decision boundary"):
        analysis.boundary_normals(broken(0.0, -1.0), images[:4], verbose=0)


def test_spectrum_of_rank_three(rank_three):
    normals, basis, coordinates = rank_three
    spectrum = analysis.normal_spectrum(normals)
    expected = np.linalg.svd(coordinates, compute_uv=False)
    np.testing.assert_allclose(
        spectrum.singular_values[:3], expected, rtol=1e-5
    )
    assert spectrum.singular_values[3:].max() < 1e-3
    assert spectrum.directions.shape == (3, *SHAPE)
    flat = spectrum.directions.reshape(3, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(flat @ basis @ basis.T, flat, atol=1e-4)
    assert spectrum.share(3) == pytest.approx(1.0, abs=1e-6)
    assert "directions" not in spectrum.to_dict()


def test_spectrum_equals_the_svd_of_numpy():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(30, 50, 50, 4))
    normals /= np.linalg.norm(normals.reshape(30, -1), axis=1).reshape(
        -1, 1, 1, 1
    )
    spectrum = analysis.normal_spectrum(normals)
    expected = np.linalg.svd(normals.reshape(30, -1), compute_uv=False)
    np.testing.assert_allclose(spectrum.singular_values, expected, rtol=1e-4)
    # These normals are random themselves.
    np.testing.assert_allclose(
        spectrum.random_singular_values, expected, rtol=0.05
    )


def test_spectrum_refuses(rank_three):
    normals = rank_three[0]
    with pytest.raises(ValueError, match="at least two normals"):
        analysis.normal_spectrum(normals[:1])
    with pytest.raises(ValueError, match="has no direction"):
        analysis.normal_spectrum(np.concatenate([normals, 0 * normals[:1]]))


def test_random_vectors_of_the_span_fool_more():
    images = models.images(80)
    rng = np.random.default_rng(0)
    normal = rng.normal(size=SHAPE)
    offset = -float((normal * images.mean(axis=0)).sum())
    model = plane(normal, offset)
    normals = rng.normal(size=(20, *SHAPE)) * 0.02 + normal
    spectrum = analysis.normal_spectrum(normals)
    result = analysis.subspace_fooling(
        model,
        spectrum,
        images,
        dims=(1, 5),
        groups=np.arange(80) // 2,
        epsilon=1.0,
        num_random=8,
        value_range=(0, 1),
        verbose=0,
    )
    # All of the span's first vector points at the boundary, either way.
    distance = np.abs(images.reshape(80, -1) @ normal.ravel() + offset)
    near = np.mean(distance / np.linalg.norm(normal) < 1.0)
    assert result.fooling_rates[0] == pytest.approx(near / 2, abs=0.2)
    assert result.fooling_rates[0] > result.random_rate
    assert result.intervals[0][0] > result.random_interval[1]
    assert result.num_groups == 40
    low, high = result.difference_intervals[0]
    assert 0 < low < result.fooling_rates[0] - result.random_rate < high
    with pytest.raises(ValueError, match="must be whole numbers from 1"):
        analysis.subspace_fooling(
            model, spectrum, images, dims=(999,), verbose=0
        )


@pytest.mark.parametrize(
    "norm", ["l2", pytest.param("linf", marks=pytest.mark.slow)]
)
def test_subspace_perturbation_stays_in_the_span(linear, images, norm):
    model = linear()
    found = analysis.boundary_normals(model, images, verbose=0)
    spectrum = analysis.normal_spectrum(found)
    epsilon = 2.0 if norm == "l2" else 0.3
    arguments = {"dim": 3, "epsilon": epsilon, "norm": norm, "verbose": 0}
    v = analysis.subspace_perturbation(
        model, spectrum, images, value_range=(0, 1), **arguments
    )
    assert lp_norm(v, norm) == pytest.approx(epsilon, rel=1e-4)
    assert lp_norm(v, norm) <= epsilon
    basis = spectrum.directions[:3].reshape(3, -1)
    inside = (basis @ v.ravel()) @ basis
    np.testing.assert_allclose(inside, v.ravel(), atol=1e-3 * epsilon)
    report = analysis.fooling_report(
        model, v, images, norm=norm, value_range=(0, 1), verbose=0
    )
    assert report.fooling_rate > report.random_rate
