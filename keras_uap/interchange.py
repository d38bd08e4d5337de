"""Perturbations in files, and files of other projects.

The public face of `keras_uap.perturbations.interchange`.
"""

from keras_uap.perturbations.interchange import (
    import_perturbation,
    load_perturbation,
    save_perturbation,
)
