"""The paper's measurements as functions, one file each.

Each function returns a small frozen result: arrays under field names, `plot()`
for a matplotlib figure, `table()` for a text, `to_dict()` for JSON.

Images come as arrays, as a `tf.data.Dataset` or `keras.utils.PyDataset` of
batches of images or of `(images, labels)`, or as what `datasets.load` gives,
whose groups and labels are used. A perturbation comes as an array, as a
`UniversalPerturbation` or `PerturbationLayer`, or as the path of an `.npz` or
`.keras` file of one.
"""

from keras_uap.analysis.baselines import Baselines as Baselines
from keras_uap.analysis.baselines import baseline_rates as baseline_rates
from keras_uap.analysis.diversity import Diversity as Diversity
from keras_uap.analysis.diversity import inner_products as inner_products
from keras_uap.analysis.diversity import (
    perturbation_diversity as perturbation_diversity,
)
from keras_uap.analysis.dominance import Dominance as Dominance
from keras_uap.analysis.dominance import DominanceHistory as DominanceHistory
from keras_uap.analysis.dominance import dominance_history as dominance_history
from keras_uap.analysis.dominance import label_dominance as label_dominance
from keras_uap.analysis.features import FeatureCollapse as FeatureCollapse
from keras_uap.analysis.features import feature_collapse as feature_collapse
from keras_uap.analysis.fitting import fit_perturbation as fit_perturbation
from keras_uap.analysis.geometry import BoundaryNormals as BoundaryNormals
from keras_uap.analysis.geometry import NormalSpectrum as NormalSpectrum
from keras_uap.analysis.geometry import SubspaceFooling as SubspaceFooling
from keras_uap.analysis.geometry import boundary_normals as boundary_normals
from keras_uap.analysis.geometry import normal_spectrum as normal_spectrum
from keras_uap.analysis.geometry import subspace_fooling as subspace_fooling
from keras_uap.analysis.geometry import (
    subspace_perturbation as subspace_perturbation,
)
from keras_uap.analysis.influence import MutualInfluence as MutualInfluence
from keras_uap.analysis.influence import mutual_influence as mutual_influence
from keras_uap.analysis.labels import LabelFlow as LabelFlow
from keras_uap.analysis.labels import TargetRates as TargetRates
from keras_uap.analysis.labels import label_flow as label_flow
from keras_uap.analysis.labels import target_rates as target_rates
from keras_uap.analysis.sample_size import EpsilonCurve as EpsilonCurve
from keras_uap.analysis.sample_size import FoolingCurve as FoolingCurve
from keras_uap.analysis.sample_size import epsilon_curve as epsilon_curve
from keras_uap.analysis.sample_size import image_kinds as image_kinds
from keras_uap.analysis.sample_size import (
    sample_size_curve as sample_size_curve,
)
from keras_uap.analysis.spectrum import (
    PerturbationSpectrum as PerturbationSpectrum,
)
from keras_uap.analysis.spectrum import (
    perturbation_spectrum as perturbation_spectrum,
)
from keras_uap.analysis.survival import Survival as Survival
from keras_uap.analysis.survival import survival_rates as survival_rates
from keras_uap.analysis.transfer import TransferMatrix as TransferMatrix
from keras_uap.analysis.transfer import transfer_matrix as transfer_matrix
from keras_uap.evaluation.examples import Examples as Examples
from keras_uap.evaluation.intervals import (
    difference_interval as difference_interval,
)
from keras_uap.evaluation.intervals import rate_interval as rate_interval
from keras_uap.evaluation.report import FoolingReport as FoolingReport
from keras_uap.evaluation.report import fooling_report as fooling_report
