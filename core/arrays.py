"""Names of the array types that packages share."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]  # features, vectors
Doubles = npt.NDArray[np.float64]  # losses, weights, statistics
Probabilities = npt.NDArray[np.float64]  # (n, k) in the order of votes.schema.LABELS
Labels = npt.NDArray[np.int8]  # indexes into votes.schema.LABELS
Folds = npt.NDArray[np.int16]
Groups = npt.NDArray[np.int64]  # hashes of normalized prompts
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]  # indexes of rows
Mask = npt.NDArray[np.bool_]
