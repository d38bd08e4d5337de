"""Survival: does a perturbation still fool after it is moved, blurred or saved?

A perturbation is found for pixels that are added as they are. A photograph of a
screen has other pixels: shifted, out of focus, scaled, compressed. Two kinds of
changes are measured.

Changes of the perturbation alone: it is shifted, mirrored, cut to a patch or
blurred, then added to the images. An image is fooled where its label differs
from its clean prediction, as everywhere in this package.

Changes of the perturbed image: out of focus, saved as JPEG, scaled down and up
again, cropped. Such a change alters the labels of clean images, too. An image
is therefore fooled where its label differs from that of the clean image under
the same change. Two more rates are given: the share whose label differs from
the clean prediction of the unchanged image, and the share that the change alone
alters.

The baseline is random noise under the same change. Where the change makes a
perturbation smaller, as blurring does, the noise is scaled to the norm that is
left of the perturbation.

Reference:
    - [Kurakin et al., 2016](https://arxiv.org/abs/1607.02533), Adversarial
      examples in the physical world
    - [Dziugaite et al., 2016](https://arxiv.org/abs/1608.00853), A study of the
      effect of JPG compression on adversarial images
"""

import dataclasses

import numpy as np

from keras_uap import visualization
from keras_uap.evaluation.changes import as_changes, labels_of_changed
from keras_uap.evaluation.intervals import rate_interval
from keras_uap.evaluation.measurement import Measurement, at_norm, stacked
from keras_uap.perturbations.lp_ball import lp_norm
from keras_uap.reporting.result import Result, in_columns
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.progress import progress_bar


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Survival(Result):
    """What `survival_rates` measured, for k changes.

    Attributes:
        names: Tuple of k strings, the changes in words. The first is none.
        of_picture: Boolean array `(k,)`, whether the perturbed image was
            changed, and not the perturbation alone.
        fooling_rates: Array `(k,)`, the share of images whose label differs
            from that of the clean image, under the same change where the
            perturbed image is changed.
        intervals: Array `(k, 2)`, 95% intervals of it.
        random_rates: Array `(k,)`, the same for random noise.
        unchanged_rates: Array `(k,)`, the share of images whose label differs
            from that of the clean image without any change.
        change_rates: Array `(k,)`, the share of clean images whose label the
            change alone alters; 0 where it is one of the perturbation.
        norms: Array `(k,)`, the norm of what was added, in pixel units.
        norm: String.
        num_images, num_groups: Integers, images and photographs.
    """

    names: tuple
    of_picture: np.ndarray
    fooling_rates: np.ndarray
    intervals: np.ndarray
    random_rates: np.ndarray
    unchanged_rates: np.ndarray
    change_rates: np.ndarray
    norms: np.ndarray
    norm: str
    num_images: int
    num_groups: int

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each change."""
        size = f"{self.norm} norm {self.norms[0]:.4g}"
        return in_columns(
            f"What a perturbation survives, {size}, {sample(self)}",
            ("change", str, self.names),
            ("fooled", percent, self.fooling_rates),
            ("95% interval", interval, self.intervals),
            ("noise", percent, self.random_rates),
            ("of unchanged", percent, self.unchanged_rates),
            ("by change", percent, self.change_rates),
        )

    def plot(self):
        """Draws the rates as bars; returns the matplotlib figure."""
        return visualization.plot_survival(self)


def survival_rates(
    classifier,
    perturbation,
    images,
    changes=None,
    groups=None,
    norm="linf",
    value_range=(0, 255),
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Measures what a perturbation still fools after it was changed.

    A change is a pair of a kind and an amount. Of the perturbation:

    - `("shift", pixels)`: down and to the right (of a signal, later), and what
      leaves at one side comes in at the other;
    - `("mirror", "left-right")` or `"up-down"`; of a signal, `"time"`;
    - `("patch", share)`: only the middle of the image has it, of so large a
      share of each side;
    - `("blur", sigma)`: by a Gaussian of so many pixels.

    Of the perturbed and clipped image:

    - `("defocus", sigma)`: blurred as a whole;
    - `("jpeg", quality)`: rounded to bytes, saved at 1 to 100 and read again;
      for grey and RGB images with a `value_range`;
    - `("scale", share)`: its sides made so much smaller, and large again;
    - `("crop", share)`: the middle of so large a share of each side, made as
      large as the image was;
    - `(name, function)`: a function of your own, from a float32 array
      `(n, H, W, C)` in pixel units to another one of that shape.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)`, or `(T, C)` of signals, in the pixel
            units of `value_range`.
        images: Images `(n, H, W, C)` or signals `(n, T, C)` to measure on.
        changes: Sequence of pairs as above. `None` means several of each kind,
            as far as the images allow.
        groups: Array `(n,)`, the photograph of each image.
        norm: `"linf"` or `"l2"`, in which random noise equals a perturbation.
        value_range: Pair of floats, the pixel range, or `None`.
        seed: Integer, the seed of the noise.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `Survival`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for changes that do not exist, amounts out of range, or
            images of another shape.

    Reference:
        - [Kurakin et al., 2016](https://arxiv.org/abs/1607.02533)
    """
    given = Measurement(perturbation, images, groups, norm, value_range, seed)
    changes = as_changes(changes, given.images, given.value_range)
    labelled = given.labelled(classifier, batch_size, from_logits)
    v, noise, norm = given.v, given.noise(), given.norm
    progress = progress_bar(len(changes), verbose, "change")
    rows = []
    for name, of_picture, change in changes:
        if of_picture:
            clean, own, random = (
                labels_of_changed(labelled, added, change)
                for added in (0 * v, v, noise)
            )
            size = given.epsilon
        else:
            clean, changed = labelled.clean, change(v)
            size = lp_norm(changed, norm)
            own = labelled.labels(changed)
            random = labelled.labels(at_norm(change(noise), size, norm))
        rows.append(
            {
                "names": name,
                "of_picture": of_picture,
                "fooling_rates": np.mean(own != clean),
                "intervals": rate_interval(own != clean, labelled.groups),
                "random_rates": np.mean(random != clean),
                "unchanged_rates": np.mean(own != labelled.clean),
                "change_rates": np.mean(clean != labelled.clean),
                "norms": size,
            }
        )
        progress.add(1)
    return Survival(**stacked(rows), norm=norm, **labelled.counts)
