"""Labelled images in memory: what a model is fitted to, and where it comes from.

`load` names a data set, `Data` and `Split` hold one, `transforms` changes the images of one. Reading is done by
TensorFlow Datasets from array_record files; TensorFlow itself is needed only to prepare its stock sets.
"""

from convlab.data.loading import load
from convlab.data.sets import Data, Split
from convlab.data.transforms import embed, permute_pixels, shift, standardise

__all__ = ["Data", "Split", "embed", "load", "permute_pixels", "shift", "standardise"]
