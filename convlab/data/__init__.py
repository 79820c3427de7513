"""Labelled images, in memory or on disk: what a model is fitted to, and where it comes from.

`load` names a data set, `Data` and `Split` hold one, `transforms` changes the images of one, `batches` reads ahead what stays
on disk, and `prepared` lists what is there. A name goes to a builder (`builders`, `stock`), the builder writes records
(`records`), the records are decoded once (`store`); all of it whole or not at all (`disk`). Records are written and read by
TensorFlow Datasets as array_record files; TensorFlow itself is needed only to prepare its stock sets.
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
