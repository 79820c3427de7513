"""Data sets of labelled images, in memory or on disk.

`load` loads a data set by name, and `Data` and `Split` hold one. `transforms` and `augment` change its images. `batches` reads
images from disk ahead of the training steps. `prepared` lists the data sets on disk.

Behind `load`, a builder (`builders`, `stock`) writes records (`records`), which are decoded once (`store`). A folder is either
complete or absent (`disk`). TensorFlow Datasets (TFDS) writes and reads the records as array_record files. TensorFlow itself
is needed only to prepare the data sets of the TFDS catalogue.
"""

from convlab.data.augment import chain, random_crop, random_flip, random_shift
from convlab.data.canvas import place_on_canvas
from convlab.data.disk import DamagedError
from convlab.data.feeding import batches
from convlab.data.listing import Prepared, prepared
from convlab.data.loading import load
from convlab.data.sets import Data
from convlab.data.splits import Split, Stored
from convlab.data.transforms import embed, permute_pixels, standardise

__all__ = [
    "DamagedError",
    "Data",
    "Prepared",
    "Split",
    "Stored",
    "batches",
    "chain",
    "prepared",
    "embed",
    "load",
    "permute_pixels",
    "place_on_canvas",
    "random_crop",
    "random_flip",
    "random_shift",
    "standardise",
]
