"""Data sets of labelled images, in memory or on disk.

`load` loads a data set by name, and `Data` and `Split` hold one. `transforms` and `augment` change its images. `batches` reads
images from disk ahead of the training steps. `list_prepared` lists the data sets on disk.

Behind `load`, a builder (`builders`, `catalogue`) writes records (`records`), which are decoded once (`store`). A folder is
either complete or missing (`disk`). TensorFlow Datasets (TFDS) writes and reads the records as array_record files. TensorFlow
itself is needed only to prepare the data sets of the TFDS catalogue.
"""

from convlab.data.augment import chain, random_crop, random_flip, random_shift
from convlab.data.batching import batches
from convlab.data.canvas import place_on_canvas
from convlab.data.disk import DamagedError
from convlab.data.listing import PreparedData, list_prepared
from convlab.data.loading import load
from convlab.data.sets import Data
from convlab.data.splits import Split, StoredImages
from convlab.data.transforms import centre_on_canvas, permute_pixels, standardise

__all__ = [
    "DamagedError",
    "Data",
    "PreparedData",
    "Split",
    "StoredImages",
    "batches",
    "centre_on_canvas",
    "chain",
    "list_prepared",
    "load",
    "permute_pixels",
    "place_on_canvas",
    "random_crop",
    "random_flip",
    "random_shift",
    "standardise",
]
