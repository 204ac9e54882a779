"""Weight files of other packages: where they are, what they contain, and which network they fit."""

from vreid_ext.weights.match import Fit, best_fit, expected_tensors, matched
from vreid_ext.weights.read import WeightFile, read_tensors, read_weights

__all__ = ["Fit", "WeightFile", "best_fit", "expected_tensors", "matched", "read_tensors", "read_weights"]
