"""The activation of degree two that homomorphic encryption can evaluate."""

from __future__ import annotations

import torch
from torch import nn

#: coefficients of x², x and 1
COEFFICIENTS = (0.125, 0.5, 0.25)


class QuadraticActivation(nn.Module):
    """0.125 x² + 0.5 x + 0.25, elementwise: the paper's stand-in for ReLU.

    Its slope at 0 is that of a smoothed ReLU, 1/2, and it is ``(x + 2)² / 8 - 1/4``: one square.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the polynomial at each value of ``x``."""
        a, b, c = COEFFICIENTS
        return (a * x + b) * x + c
