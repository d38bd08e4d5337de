"""The paper's measurements as functions, one file each.

Each function returns a small frozen result: arrays under field names, `plot()`
for a matplotlib figure, `table()` for a text, `to_dict()` for JSON.

Images come as arrays, as a `tf.data.Dataset` or `keras.utils.PyDataset` of
batches of images or of `(images, labels)`, or as what `datasets.load` gives,
whose groups and labels are used. A perturbation comes as an array, as a
`UniversalPerturbation` or `PerturbationLayer`, or as the path of an `.npz` or
`.keras` file of one.
"""

from keras_uap.analysis.baselines import Baselines, baseline_rates
from keras_uap.analysis.diversity import (
    Diversity,
    inner_products,
    perturbation_diversity,
)
from keras_uap.analysis.dominance import (
    Dominance,
    DominanceHistory,
    dominance_history,
    label_dominance,
)
from keras_uap.analysis.features import FeatureCollapse, feature_collapse
from keras_uap.analysis.fitting import fit_perturbation
from keras_uap.analysis.geometry import (
    BoundaryNormals,
    NormalSpectrum,
    SubspaceFooling,
    boundary_normals,
    normal_spectrum,
    subspace_fooling,
    subspace_perturbation,
)
from keras_uap.analysis.influence import MutualInfluence, mutual_influence
from keras_uap.analysis.labels import (
    LabelFlow,
    TargetRates,
    label_flow,
    target_rates,
)
from keras_uap.analysis.sample_size import (
    EpsilonCurve,
    FoolingCurve,
    epsilon_curve,
    image_kinds,
    sample_size_curve,
)
from keras_uap.analysis.spectrum import (
    PerturbationSpectrum,
    perturbation_spectrum,
)
from keras_uap.analysis.survival import Survival, survival_rates
from keras_uap.analysis.transfer import TransferMatrix, transfer_matrix
from keras_uap.evaluation.examples import Examples
from keras_uap.evaluation.intervals import difference_interval, rate_interval
from keras_uap.evaluation.report import FoolingReport, fooling_report
