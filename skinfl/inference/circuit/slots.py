"""Linear maps of a ciphertext's slots, by rotations and plain weights."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, Mapping, Sequence, Tuple

import numpy as np

from skinfl.errors import ModelError
from skinfl.inference.ckks import Ckks, Keys
from skinfl.protection.he.seal import sealapi

#: giant step -> (input, baby step) -> one weight for each output slot
SlotTerms = Mapping[int, Mapping[Tuple[int, int], np.ndarray]]


class SlotMap:
    """A linear map of slots, as sums of rotated inputs times weights (baby-step giant-step).

    With x_i the inputs, ``rot`` to the left and w the terms, output slot k is

        y[k] = sum over giant g, input i, baby b of w[g][i, b][k] x_i[k + g + b].

    Inputs are rotated by baby steps once, partial sums by giant steps: for n = giants x babies terms this
    takes about 2 sqrt(n) rotations. Halevi and Shoup, "Algorithms in HElib", CRYPTO 2014, section 4.3.
    Weights that all round to 0 are left out, as SEAL refuses to multiply by 0.
    """

    def __init__(self, ckks: Ckks, terms: SlotTerms, level: int, scale: float):
        self.ckks = ckks
        self.scale = float(scale)
        self.steps: FrozenSet[int] = frozenset(terms) | {b for inner in terms.values() for _, b in inner}
        self._groups: List[Tuple[int, Dict[Tuple[int, int], Any]]] = []
        for giant, inner in terms.items():
            # The product is rotated by the giant step afterwards, so its weights lie that far right.
            encoded = {key: ckks.encode(np.roll(w, giant), level, scale) for key, w in inner.items()}
            encoded = {key: plain for key, plain in encoded.items() if not plain.is_zero()}
            if encoded:
                self._groups.append((giant, encoded))
        if not self._groups:
            raise ModelError("a layer's weights are all zero: the network ignores its input, train it again")

    def apply(self, inputs: Sequence[Any], keys: Keys) -> Any:
        """Return the map of the input ciphertexts."""
        evaluator = self.ckks.evaluator
        rotated: Dict[Tuple[int, int], Any] = {}
        total = None
        for giant, weights in self._groups:
            partial = None
            for (i, baby), plain in weights.items():
                if (i, baby) not in rotated:
                    rotated[i, baby] = self.ckks.rotate(inputs[i], baby, keys)
                product = sealapi.Ciphertext()
                evaluator.multiply_plain(rotated[i, baby], plain, product)
                if partial is None:
                    partial = product
                else:
                    evaluator.add_inplace(partial, product)
            partial = self.ckks.rotate(partial, giant, keys)
            if total is None:
                total = partial
            else:
                evaluator.add_inplace(total, partial)
        return total


def diagonals(matrix: np.ndarray, babies: int) -> SlotTerms:
    """Return the terms of a matrix of shape (rows, columns), rows dividing columns, for all slots.

    Output slot k holds a part of row k mod rows: the sum of the outputs at k, k + rows, ... is that row's
    product. ``babies`` divides rows.
    """
    rows, columns = matrix.shape
    k = np.arange(columns)
    return {
        giant: {(0, baby): matrix[k % rows, (k + giant + baby) % columns] for baby in range(babies)}
        for giant in range(0, rows, babies)
    }
