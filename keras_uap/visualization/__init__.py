"""Plots of results, drawn with matplotlib; one file a measurement.

matplotlib is imported when a plot is drawn, not before. Figures are made
without pyplot: a notebook shows them, `figure.savefig(path)` writes them."""

from keras_uap.visualization.audit import plot_audit as plot_audit
from keras_uap.visualization.baselines import plot_baselines as plot_baselines
from keras_uap.visualization.diversity import plot_diversity as plot_diversity
from keras_uap.visualization.dominance import plot_dominance as plot_dominance
from keras_uap.visualization.dominance import (
    plot_dominance_history as plot_dominance_history,
)
from keras_uap.visualization.features import plot_features as plot_features
from keras_uap.visualization.geometry import plot_normals as plot_normals
from keras_uap.visualization.geometry import plot_spectrum as plot_spectrum
from keras_uap.visualization.geometry import plot_subspace as plot_subspace
from keras_uap.visualization.hardening import plot_hardening as plot_hardening
from keras_uap.visualization.influence import plot_influence as plot_influence
from keras_uap.visualization.labels import plot_label_flow as plot_label_flow
from keras_uap.visualization.labels import plot_label_graph as plot_label_graph
from keras_uap.visualization.labels import plot_targets as plot_targets
from keras_uap.visualization.perturbation import (
    plot_perturbation as plot_perturbation,
)
from keras_uap.visualization.report import plot_report as plot_report
from keras_uap.visualization.sample_size import plot_curve as plot_curve
from keras_uap.visualization.spectrum import (
    plot_perturbation_spectrum as plot_perturbation_spectrum,
)
from keras_uap.visualization.style import CLEAN as CLEAN
from keras_uap.visualization.style import FOOLED as FOOLED
from keras_uap.visualization.style import NEUTRAL as NEUTRAL
from keras_uap.visualization.survival import plot_survival as plot_survival
from keras_uap.visualization.transfer import plot_transfer as plot_transfer
