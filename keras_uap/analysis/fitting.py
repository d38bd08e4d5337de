"""Perturbations for the measurements that need several of them."""

from keras_uap.attacks import updates
from keras_uap.attacks.fitting import some_of
from keras_uap.attacks.universal_perturbation import UniversalPerturbation
from keras_uap.data.pictures import as_array
from keras_uap.utils.saving import random_state_kept
from keras_uap.utils.validation import check_whole


@random_state_kept()
def fit_perturbation(
    classifier,
    images,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    target=None,
    seed=0,
    draws=1024,
    batch_size=16,
    optimizer=None,
    from_logits=None,
    verbose=0,
    loss=None,
    initial_perturbation=None,
    callbacks=None,
):
    """Finds a universal perturbation with a given amount of work.

    The measurements that need several perturbations find them with this. Few
    images are shown several times and of many only some are taken, so that
    perturbations from sets of different sizes cost the same.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Images `(n, H, W, C)` to fit on.
        epsilon: Float above 0, the radius of the ball, in pixel units.
        norm: `"linf"` or `"l2"`.
        value_range: Pair of floats, the pixel range, or `None`.
        target: Integer, the class to send images to, or `None`.
        seed: Integer; the order of the images follows from it.
        draws: Integer, how many images are shown, rounded up to whole epochs.
        batch_size: Integer.
        optimizer: What `UniversalPerturbation.compile` takes; `None` for sign
            steps that become smaller (`"decaying_lion"`), or for `"deepfool"`
            in an l2 ball, if there is neither a target nor a `loss`.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0, 1 or 2, as in Keras.
        loss: What `UniversalPerturbation.compile` takes; `None` for
            `"dominant"`, or `"crossentropy"` where there is a `target`.
        initial_perturbation: What `UniversalPerturbation` takes: where to
            start, or `None` for zero.
        callbacks: What `UniversalPerturbation.fit` takes.

    Returns:
        NumPy array `(H, W, C)`, in pixel units.

    Raises:
        TypeError, ValueError: as `UniversalPerturbation` and its `fit`.
    """
    images = as_array(images)
    check_whole("seed", seed, 0)
    check_whole("draws", draws, 1)
    check_whole("batch_size", batch_size, 1)
    images = some_of(images, draws, seed)
    uap = UniversalPerturbation(
        classifier,
        epsilon,
        norm,
        value_range=value_range,
        target=target,
        from_logits=from_logits,
        initial_perturbation=initial_perturbation,
        seed=seed,
    )
    best, loss = updates.strongest(uap.ball, target, loss)
    uap.compile(best if optimizer is None else optimizer, loss=loss)
    uap.fit(
        images,
        batch_size=batch_size,
        epochs=-(-draws // len(images)),
        verbose=verbose,
        callbacks=callbacks,
    )
    return uap.perturbation


def default_fit(classifier, norm, value_range, draws, from_logits):
    """Returns `fit(images, epsilon, seed)` made of `fit_perturbation`.

    It takes further arguments of `fit_perturbation` as keywords.
    """

    options = {"draws": draws, "from_logits": from_logits}

    def fit(images, epsilon, seed, **others):
        ball = epsilon, norm, value_range
        others |= options | {"seed": seed}
        return fit_perturbation(classifier, images, *ball, **others)

    return fit
