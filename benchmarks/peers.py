"""What `keras_uap` is compared with, each at its best on this stack.

ART and foolbox are called as they come, with a compiled function as the model,
which makes both faster than handing them the Keras model. The authors' loop,
sign-SGD, SGA, FG-UAP and Cos-UAP are short TensorFlow 2 versions written from
the papers.
"""

import contextlib
import unittest.mock

import numpy as np
import tensorflow as tf
from common import HIGH, LOW

from keras_uap.classifiers.logits import predict_logits


class RaceOver(Exception):
    """Raised inside a peer that has no way of its own to be stopped."""


def compiled_model(logits, scale=1.0):
    """A compiled function `(x, training)` of images in `[0, 255 / scale]`."""

    @tf.function(reduce_retracing=True, autograph=False)
    def run(x):
        return logits(tf.cast(x, "float32") * scale)

    return lambda x, training=False: run(x)


# ART ------------------------------------------------------------------------


def art_classifier(logits, image_shape, scale=1.0, on_predict=None):
    """An ART classifier that counts its model passes.

    ART's DeepFool lengthens its steps by the width of `clip_values`, which
    fits pixels in 0 to 1 only: `scale=255` gives it such pixels.

    Args:
        logits: Function from images to logits.
        image_shape: Tuple `(H, W, C)`.
        scale: Float, the pixel value that ART sees as 1.
        on_predict: Function that is called before each prediction.
    """
    import keras
    from art.estimators.classification import TensorFlowV2Classifier

    class Counted(TensorFlowV2Classifier):
        passes = 0

        def predict(self, x, *args, **kwargs):
            if on_predict is not None:
                on_predict()
            self.passes += len(x)
            return super().predict(x, *args, **kwargs)

        def class_gradient(self, x, *args, **kwargs):
            self.passes += 2 * len(x)
            return super().class_gradient(x, *args, **kwargs)

    return Counted(
        model=compiled_model(logits, scale),
        nb_classes=1000,
        input_shape=image_shape,
        loss_object=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        ),
        clip_values=(LOW / scale, HIGH / scale),
    )


def art_universal(logits, images, epsilon, race, scale=1.0):
    """Runs ART's UniversalPerturbation until the race is over."""
    from art.attacks.evasion import universal_perturbation as module

    v = np.zeros(images.shape[1:], "float32")
    racing = False

    def look():
        if racing:
            race.passes = classifier.passes
            race.look_or_stop(v)

    def projection(*args):
        nonlocal v
        result = unhooked(*args)
        v = np.asarray(result, "float32").reshape(v.shape) * scale
        return result

    unhooked = module.projection
    classifier = art_classifier(logits, images.shape[1:], scale, look)
    attack = module.UniversalPerturbation(
        classifier,
        attacker="deepfool",
        attacker_params={"max_iter": 50, "verbose": False},
        delta=0.0,  # Only the race ends it.
        max_iter=50,
        eps=epsilon / scale,
        norm=np.inf,
        verbose=False,
    )
    x = images.astype("float32") / scale
    classifier.predict(x)
    classifier.predict(x[:1])
    classifier.class_gradient(x[:1], label=0)
    classifier.passes, racing = 0, True
    with (
        unittest.mock.patch.object(module, "projection", projection),
        np.errstate(all="ignore"),
        contextlib.suppress(RaceOver),
    ):
        race.start()
        attack.generate(x)


def art_deepfool(logits, images, scale=1.0):
    """Returns a function that runs ART's DeepFool on images in 0 to 255."""
    from art.attacks.evasion import DeepFool

    classifier = art_classifier(logits, images.shape[1:], scale)
    # With larger batches it takes the gradients of all the candidates of all
    # the images for each image: one at a time is its fastest.
    attack = DeepFool(
        classifier,
        max_iter=50,
        epsilon=0.02,
        nb_grads=10,
        batch_size=1,
        verbose=False,
    )

    def run(x):
        return attack.generate(x / np.float32(scale)) * np.float32(scale)

    return run


# foolbox --------------------------------------------------------------------


def foolbox_deepfool(logits, batch_size=32):
    """Returns a function that runs foolbox's L2DeepFoolAttack."""
    import foolbox

    predict = compiled_model(logits)
    model = foolbox.TensorFlowModel(predict, bounds=(LOW, HIGH))
    attack = foolbox.attacks.L2DeepFoolAttack(
        steps=50, candidates=10, overshoot=0.02
    )

    def run(x):
        parts = []
        for start in range(0, len(x), batch_size):
            batch = tf.constant(x[start : start + batch_size])
            labels = tf.argmax(predict(batch), axis=-1)
            parts.append(attack(model, batch, labels, epsilons=None)[0].numpy())
        return np.concatenate(parts)

    return run


# The authors' loop ----------------------------------------------------------


def authors_loop(logits, images, epsilon, race, seed=0):
    """Algorithm 1 of the paper, one image after another.

    The two calls into the network, logits and the gradients of ten classes,
    are compiled; the rest is NumPy, as the authors describe it. The check of
    the fooling rate on the images after each pass is left out, in its favour.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    shape = tf.TensorSpec((None, *images.shape[1:]), "float32")

    @tf.function(input_signature=[shape], autograph=False)
    def scores_of(image):
        return logits(image)

    @tf.function(
        input_signature=[shape, tf.TensorSpec((10,), "int32")], autograph=False
    )
    def gradients_of(image, classes):
        with tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as tape:
            tape.watch(image)
            chosen = tf.unstack(tf.gather(logits(image)[0], classes))
        return tf.concat([tape.gradient(z, image) for z in chosen], axis=0)

    def scores(image):
        race.passes += 1
        return scores_of(image).numpy()[0]

    def deepfool(image, overshoot=0.02, max_iter=50):
        """The increment of one image, and whether its label changed."""
        z = scores(image)
        classes = np.argsort(z)[::-1][:10].astype("int32")
        total, moved, label = np.zeros_like(image), image, classes[0]
        for _ in range(max_iter):
            gradients = gradients_of(moved, classes).numpy()
            race.passes += 11
            w = gradients[1:] - gradients[0]
            f = np.abs(z[classes[1:]] - z[label])
            lengths = np.linalg.norm(w.reshape(9, -1), axis=1)
            nearest = np.argmin(f / lengths)
            # The small constant takes it over a boundary that it lies on.
            step = (f[nearest] + 1e-4) / lengths[nearest] ** 2
            total = total + step * w[nearest]
            moved = image + (1 + overshoot) * total
            z = scores(moved)
            if np.argmax(z) != label:
                return (1 + overshoot) * total, True
        return total, False

    images = images.astype("float32")[:, np.newaxis]
    gradients_of(images[0], np.arange(10, dtype="int32"))
    scores_of(images[0])
    rng = np.random.default_rng(seed)
    v = np.zeros_like(images[0])
    race.start()
    clean = [np.argmax(scores(image)) for image in images]
    while not race.over:
        for i in rng.permutation(len(images)):
            if np.argmax(scores(images[i] + v)) == clean[i]:
                increment, converged = deepfool(images[i] + v)
                if converged:
                    v = np.clip(v + increment, -epsilon, epsilon)
            if race.look(v[0]):
                break


# Gradient references --------------------------------------------------------


def clipped_gradient(logits, image_shape, cap):
    """A compiled gradient, with respect to v, of the capped cross-entropy."""

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, *image_shape), "float32"),
            tf.TensorSpec((None,), "int64"),
            tf.TensorSpec(image_shape, "float32"),
        ],
        autograph=False,
    )
    def gradient(images, labels, v):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(v)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, logits(tf.clip_by_value(images + v, LOW, HIGH))
            )
            loss = tf.reduce_mean(tf.minimum(loss, cap))
        return tape.gradient(loss, v)

    return lambda x, y, v: gradient(x.astype("float32"), y, v).numpy()


def sign_sgd(gradient, images, labels, epsilon, rng, step, batch_size=16):
    """Yields model passes and v after each sign step of gradient ascent.

    References:
        - [Shafahi et al., 2018](https://arxiv.org/abs/1811.11304)
        - [Co et al., 2021](https://arxiv.org/abs/1911.10364)
    """
    v, passes = np.zeros(images.shape[1:], "float32"), 0
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            direction = np.sign(gradient(images[index], labels[index], v))
            v = np.clip(v + step * direction, -epsilon, epsilon)
            passes += 2 * len(index)
            yield passes, v


def sga(
    gradient,
    images,
    labels,
    epsilon,
    rng,
    step,
    batch_size=250,
    inner_size=10,
    rounds=4,
):
    """Stochastic gradient aggregation: yields passes and v per outer step.

    For each large batch, an inner copy of v takes sign steps on small batches
    drawn from it. The inner gradients are added up, and the sign of their sum
    is the one step that v itself makes.

    Reference:
        - [Liu et al., 2023](https://arxiv.org/abs/2308.06015)
    """
    v, passes = np.zeros(images.shape[1:], "float32"), 0
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order), batch_size):
            large = order[start : start + batch_size]
            inner, total = v, np.zeros_like(v)
            for _ in range(max(1, rounds * len(large) // inner_size)):
                small = rng.choice(
                    large, min(inner_size, len(large)), replace=False
                )
                found = gradient(images[small], labels[small], inner)
                inner = np.clip(
                    inner + step * np.sign(found), -epsilon, epsilon
                )
                total += found
                passes += 2 * len(small)
            v = np.clip(v + step * np.sign(total), -epsilon, epsilon)
            yield passes, v


def cosine_adam(outputs, images, epsilon, rng, rate, batch_size=32):
    """Yields model passes and v after each step of Adam on a mean cosine.

    The cosine is that of what the network makes of a clean image and of the
    same perturbed: its features in FG-UAP, its logits in Cos-UAP. v starts
    uniform in the ball, since at zero the cosine has no gradient. What the
    network makes of clean images is kept, and costs nothing here, in favour
    of both.

    Args:
        outputs: Function from images `(n, H, W, C)` to `(n, d)`.
        images: Array `(n, H, W, C)`, in 0 to 255.
        epsilon: Float, the radius of the l-infinity ball, in pixels.
        rng: `np.random.Generator`.
        rate: Float, the learning rate of Adam, in pixels.
        batch_size: Integer.

    References:
        - [Ye, Cheng and Huang, 2022](https://arxiv.org/abs/2209.13113): Adam
          with a rate of 0.02 of the pixel range, in batches of 32
        - Zhang, Benz, Karjauv and Kweon: Data-free universal adversarial
          perturbation and black-box attack, ICCV 2021
    """
    import keras

    images = images.astype("float32")
    shape = images.shape[1:]
    v = tf.Variable(rng.uniform(-epsilon, epsilon, shape).astype("float32"))
    optimizer = keras.optimizers.Adam(rate)

    @tf.function(reduce_retracing=True, autograph=False)
    def directions(x):
        return tf.math.l2_normalize(outputs(x), axis=-1)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, *shape), "float32"),
            tf.TensorSpec((None, None), "float32"),
        ],
        autograph=False,
    )
    def gradient(x, clean):
        with tf.GradientTape() as tape:
            perturbed = directions(tf.clip_by_value(x + v, LOW, HIGH))
            loss = tf.reduce_mean(tf.reduce_sum(clean * perturbed, axis=-1))
        return tape.gradient(loss, v)

    clean = predict_logits(directions, images, batch_size=batch_size)
    passes = 0
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            optimizer.apply_gradients(
                [(gradient(images[index], clean[index]), v)]
            )
            v.assign(tf.clip_by_value(v, -epsilon, epsilon))
            passes += 2 * len(index)
            yield passes, v.numpy()
