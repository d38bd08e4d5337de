"""Plots of results, drawn with matplotlib; one file a measurement.

matplotlib is imported when a plot is drawn, not before. Figures are made
without pyplot: a notebook shows them, `figure.savefig(path)` writes them."""

from keras_uap.visualization.audit import plot_audit
from keras_uap.visualization.baselines import plot_baselines
from keras_uap.visualization.diversity import plot_diversity
from keras_uap.visualization.dominance import (
    plot_dominance,
    plot_dominance_history,
)
from keras_uap.visualization.features import plot_features
from keras_uap.visualization.geometry import (
    plot_normals,
    plot_spectrum,
    plot_subspace,
)
from keras_uap.visualization.hardening import plot_hardening
from keras_uap.visualization.influence import plot_influence
from keras_uap.visualization.labels import (
    plot_label_flow,
    plot_label_graph,
    plot_targets,
)
from keras_uap.visualization.perturbation import plot_perturbation
from keras_uap.visualization.report import plot_report
from keras_uap.visualization.sample_size import plot_curve
from keras_uap.visualization.spectrum import plot_perturbation_spectrum
from keras_uap.visualization.style import CLEAN, FOOLED, NEUTRAL
from keras_uap.visualization.survival import plot_survival
from keras_uap.visualization.transfer import plot_transfer
