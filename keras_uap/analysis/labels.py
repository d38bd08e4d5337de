"""Labels: where does a perturbation send images, and can that be chosen?

Fig. 7 and Section 3 of the paper. A few *dominant labels* take most of the
fooled images. The paper draws them as a directed graph: its nodes are labels,
and an edge runs from label i to label j where the majority of the images of
label i go to j. Each weakly connected part of it hangs on one dominant label.

`target_rates` asks the reverse: send every image to a label of choice.

Reference:
    - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401), Fig. 7
"""

import dataclasses

import numpy as np

from keras_uap import visualization
from keras_uap.analysis.fitting import default_fit
from keras_uap.evaluation.intervals import interval_of_some
from keras_uap.evaluation.labelled_images import LabelledImages
from keras_uap.evaluation.measurement import read_parts, stacked
from keras_uap.perturbations.lp_ball import LpBall
from keras_uap.reporting.result import LEFT_OUT, Result, in_columns
from keras_uap.utils.formatting import interval, percent, sample
from keras_uap.utils.progress import progress_bar
from keras_uap.utils.validation import as_class, as_wholes, check_number
from keras_uap.visualization.style import class_name


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LabelFlow(Result):
    """What `label_flow` measured on n images.

    Attributes:
        clean_labels, perturbed_labels: Integer arrays `(n,)`, predictions.
        labels: Integer array `(k,)`, the labels of the perturbed images, the
            most common one first.
        captured: Array `(k,)`, the share of all images whose perturbed label
            is among the first 1, 2, ... k of `labels`.
        clean_captured: Array, the same for the clean predictions and their own
            most common labels: what to compare with.
        fooling_rate: Float.
        num_images: Integer.
    """

    clean_labels: np.ndarray
    perturbed_labels: np.ndarray
    labels: np.ndarray
    captured: np.ndarray
    clean_captured: np.ndarray
    fooling_rate: float
    num_images: int

    def edges(self, least_share=0.5, least_images=1):
        """The edges of the label graph.

        Args:
            least_share: Float in [0, 1]. An edge runs from a clean label to
                the label that most of its images go to, if that is another
                one and more than this share of them. The paper's "majority"
                is 0.5.
            least_images: Integer, the least images of a clean label.

        Returns:
            List of `(from, to, images moved, images of the clean label)`, the
            largest first.
        """
        check_number("least_share", least_share, least=0, most=1)
        edges = []
        for label in np.unique(self.clean_labels).tolist():
            sent = self.perturbed_labels[self.clean_labels == label]
            goal = int(captured_by(sent)[0][0])
            moved, of = int(np.sum(sent == goal)), len(sent)
            enough = moved > least_share * of and of >= least_images
            if goal != label and enough:
                edges.append((label, goal, moved, of))
        return sorted(edges, key=lambda edge: (-edge[2], edge[0]))

    def graph(self, least_share=0.5, least_images=1):
        """The label graph, for the arguments of `edges`.

        Args:
            least_share: Float in [0, 1], as for `edges`.
            least_images: Integer, as for `edges`.

        Returns:
            A `networkx.DiGraph`; edges carry `images` and `of`.
        """
        import networkx  # It takes half a second.

        graph = networkx.DiGraph()
        for start, end, moved, of in self.edges(least_share, least_images):
            graph.add_edge(start, end, images=moved, of=of)
        return graph

    def components(self, least_share=0.5, least_images=1):
        """The weakly connected parts of the label graph.

        Args:
            least_share: Float in [0, 1], as for `edges`.
            least_images: Integer, as for `edges`.

        Returns:
            List of `(labels, dominant label)`, the largest part first; the
            dominant label is the one that most edges lead to.
        """
        import networkx

        graph = self.graph(least_share, least_images)

        def weight(node):
            in_degree = graph.in_degree
            return in_degree(node), in_degree(node, weight="images")

        components = networkx.weakly_connected_components(graph)
        parts = [(sorted(c), max(sorted(c), key=weight)) for c in components]
        return sorted(parts, key=lambda part: (-len(part[0]), part[1]))

    def rows(self, class_names=None):
        """A title, the names of the columns and the ten top labels."""
        top = self.labels[:10]
        after, before = (
            [np.mean(labels == label) for label in top]
            for labels in (self.perturbed_labels, self.clean_labels)
        )
        return in_columns(
            f"Labels of n = {self.num_images} images, {self.fooling_rate:.1%} "
            "of them fooled",
            ("label", str, [class_name(label, class_names) for label in top]),
            ("perturbed", percent, after),
            ("clean", percent, before),
            ("perturbed, up to here", percent, self.captured),
        )

    def plot(self, class_names=None):
        """Draws dominant labels and their share; returns the figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_label_flow(self, class_names)

    def plot_graph(self, class_names=None, least_share=0.5, most=4):
        """Draws the largest parts of the graph; returns the figure.

        Args:
            class_names: List of strings, one for each class.
            least_share: Float in [0, 1], as for `edges`.
            most: Integer, how many parts are drawn at most.
        """
        return visualization.plot_label_graph(
            self, class_names, least_share, most
        )


def label_flow(
    classifier,
    perturbation,
    images,
    value_range=(0, 255),
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Follows images from their clean to their perturbed label.

    Args:
        classifier: Keras model that maps images to class scores.
        perturbation: Array `(H, W, C)`, in the pixel units of `value_range`.
        images: Images `(n, H, W, C)`.
        value_range: Pair of floats, the pixel range, or `None`.
        batch_size: Integer.
        from_logits: Boolean, whether the classifier returns logits; `None`
            finds out.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `LabelFlow`.

    Raises:
        TypeError: if `classifier` is not a Keras model.
        ValueError: for images that are empty, not finite or of another shape.

    Reference:
        - [Moosavi-Dezfooli et al., 2017](https://arxiv.org/abs/1610.08401)
    """
    options = value_range, batch_size, from_logits, verbose
    labelled = LabelledImages(classifier, images, *options)
    before, after = labelled.clean, labelled.labels(perturbation, verbose)
    labels, captured = captured_by(after)
    return LabelFlow(
        clean_labels=before,
        perturbed_labels=after,
        labels=labels,
        captured=captured,
        clean_captured=captured_by(before)[1],
        fooling_rate=float(np.mean(before != after)),
        num_images=len(before),
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TargetRates(Result):
    """What `target_rates` measured, for k targets.

    Attributes:
        targets: Tuple of class indices.
        target_rates: Array `(k,)`, the share of the held-out images not
            already of the target that are sent there.
        intervals: Array `(k, 2)`, 95% intervals of it.
        num_others: Integer array `(k,)`, the images not already of the target.
        clean_rates: Array `(k,)`, the share of all held-out images that are of
            the target without perturbation.
        fooling_rates: Array `(k,)`, the share with any other label than clean.
        epsilon, norm: The ball, in pixel units.
        num_images, num_groups: Integers, held-out images and photographs.
        perturbations: Array `(k, H, W, C)`, in pixel units.
    """

    targets: tuple
    target_rates: np.ndarray
    intervals: np.ndarray
    num_others: np.ndarray
    clean_rates: np.ndarray
    fooling_rates: np.ndarray
    epsilon: float
    norm: str
    num_images: int
    num_groups: int
    perturbations: np.ndarray = dataclasses.field(repr=False, metadata=LEFT_OUT)

    def rows(self, class_names=None):
        """A title, the names of the columns and a row for each target."""
        names = [class_name(target, class_names) for target in self.targets]
        return in_columns(
            f"Sent to a target, {self.norm} norm {self.epsilon:g}, "
            f"{sample(self)}",
            ("target", str, names),
            ("sent there", percent, self.target_rates),
            ("of", str, self.num_others),
            ("95% interval", interval, self.intervals),
            ("fooled", percent, self.fooling_rates),
        )

    def plot(self, class_names=None):
        """Draws the rates as bars; returns the matplotlib figure.

        Args:
            class_names: List of strings, one for each class.
        """
        return visualization.plot_targets(self, class_names)


def target_rates(
    classifier,
    images,
    held_out,
    targets,
    groups=None,
    epsilon=10.0,
    norm="linf",
    value_range=(0, 255),
    draws=1024,
    seed=0,
    batch_size=32,
    from_logits=None,
    verbose="auto",
):
    """Finds a perturbation for each target and measures how often it works.

    Args:
        classifier: Keras model that maps images to class scores.
        images: Images `(n, H, W, C)` to fit on.
        held_out: Images `(m, H, W, C)` of other photographs.
        targets: Sequence of class indices.
        groups: Array `(m,)`, the photograph of each held-out image.
        epsilon, norm, value_range, draws, seed, from_logits: See
            `fit_perturbation`.
        batch_size: Integer, for measuring.
        verbose: `"auto"`, 0 or 1, whether to show progress.

    Returns:
        A `TargetRates`.

    Raises:
        ValueError: for targets that are no classes, no targets, or a target
            that all held-out images are of.
    """
    targets = as_wholes("targets", targets, 0, np.inf)
    ball = LpBall(epsilon, norm)
    images, held_out = read_parts(images, held_out, groups)
    options = value_range, batch_size, from_logits
    labelled = LabelledImages(classifier, held_out, *options)
    as_class("targets", max(targets), labelled.num_classes)
    # An image that is already of the target cannot be sent there.
    others = [labelled.clean != target for target in targets]
    for target, other in zip(targets, others):
        if not other.any():
            raise ValueError(
                "A target needs held-out images of other classes. Received: "
                f"target {target}, and {len(other)} held-out images that "
                "the classifier gives that label."
            )
    progress = progress_bar(len(targets), verbose, "target")
    fit = default_fit(classifier, norm, value_range, draws, from_logits)
    rows = []
    for target, other in zip(targets, others):
        v = fit(images, epsilon, seed, target=target)
        labels = labelled.labels(v)
        hits = labels[other] == target
        groups = None if labelled.groups is None else labelled.groups[other]
        rows.append(
            {
                "target_rates": hits.mean(),
                "intervals": interval_of_some(hits, groups),
                "num_others": other.sum(),
                "clean_rates": np.mean(~other),
                "fooling_rates": np.mean(labels != labelled.clean),
                "perturbations": v,
            }
        )
        progress.add(1)
    return TargetRates(
        targets=targets,
        **stacked(rows),
        epsilon=ball.epsilon,
        norm=ball.norm,
        **labelled.counts,
    )


def captured_by(labels):
    """Labels, the most common first, and the cumulative share they take.

    Args:
        labels: Integer array `(n,)`.
    """
    values, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return values[order], np.cumsum(counts[order]) / len(labels)
