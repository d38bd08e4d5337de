"""Images from a folder, a TFDS dataset or memory, ready for a fit.

The public face of `keras_uap.data`.
"""

from keras_uap.data.augmentation import FEW, augmentation, augmented, views
from keras_uap.data.loading import UnreadableError, images, load
from keras_uap.data.pictures import Pictures, without_tuner
from keras_uap.data.splitting import split
