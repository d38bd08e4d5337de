"""Images that are no photographs: a perturbation without data.

A perturbation can be fitted to images without content. It fools fewer images
than one fitted to photographs. It serves as a baseline that shows how much
photographs add, and as an `initial_perturbation` when photographs are few.

Reference:
    - [GD-UAP, Mopuri et al., 2018](https://arxiv.org/abs/1801.08092)
    - [Zhang et al., 2021](https://openaccess.thecvf.com/content/ICCV2021/html/Zhang_Data-Free_Universal_Adversarial_Perturbation_and_Black-Box_Attack_ICCV_2021_paper.html),
      on jigsaw images
"""

import numpy as np

from keras_uap.perturbations.pixels import as_value_range
from keras_uap.utils.validation import check_choice, check_whole, invalid

KINDS = ("jigsaw", "noise")


def noise_images(n, shape, kind="jigsaw", seed=0, value_range=(0, 255)):
    """Makes images without any content to fit a perturbation to.

    Example:

    ```python
    images = keras_uap.noise_images(512, (224, 224, 3), seed=1)
    uap.fit(images, epochs=2)
    ```

    Args:
        n: Integer of at least 1, the number of images.
        shape: Tuple `(H, W, C)`, or `(T, C)` for signals.
        kind: `"jigsaw"`, a grid of pieces of one random colour each, coarse
            or fine from image to image (2 to 32 pieces a side); or `"noise"`,
            Gaussian noise around the middle of the range, 99.9 % of it
            inside.
        seed: Integer, the seed of the draws.
        value_range: Pair of floats, the pixel range.

    Returns:
        Float32 NumPy array `(n, *shape)` inside `value_range`.

    Raises:
        ValueError: for arguments out of range or an unknown kind.

    Reference:
        - [Mopuri et al., 2018](https://arxiv.org/abs/1801.08092)
    """
    check_whole("n", n, 1)
    shape = tuple(shape)
    for size in shape:
        check_whole("each size in shape", size, 1)
    if len(shape) < 2:
        raise invalid("shape", "(height, width, channels)", shape)
    check_choice("kind", kind, KINDS)
    if value_range is None:
        fix = "Pass the least and the largest value that your images have."
        raise invalid("value_range", "a pair (low, high)", None, fix)
    low, high = as_value_range(value_range)
    rng = np.random.default_rng(seed)
    if kind == "jigsaw":
        return np.stack([_jigsaw(shape, low, high, rng) for _ in range(n)])
    images = rng.standard_normal((n, *shape), "float32")
    # 99.9% of a normal distribution is within 3.29 standard deviations.
    images = (low + high) / 2 + images * ((high - low) / 2 / 3.29)
    return np.clip(images, low, high).astype("float32")


def _jigsaw(shape, low, high, rng):
    """One image: `pieces` colours along each side, as large as they fit."""
    *sides, channels = shape
    most = max(1, min(32, *sides))
    least = min(2, most)
    # As many coarse images as fine ones.
    pieces = round(np.exp(rng.uniform(np.log(least), np.log(most))))
    image = rng.uniform(low, high, (pieces,) * len(sides) + (channels,))
    for axis, side in enumerate(sides):
        image = np.take(image, np.arange(side) * pieces // side, axis)
    return image.astype("float32")
