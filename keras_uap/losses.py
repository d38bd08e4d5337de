"""What gradient steps minimise, for `UniversalPerturbation.compile`.

The public face of `keras_uap.attacks.losses`.
"""

from keras_uap.attacks.losses import (
    BatchLoss,
    ClippedCrossentropy,
    Dominant,
    Features,
    Margin,
    Seen,
    WeightedSum,
    class_masses,
    dominant_goals,
    get,
)
