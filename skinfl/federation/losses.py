"""The losses of local training, by name; :mod:`skinfl.federation.objective` computes them."""

from __future__ import annotations

from skinfl.registry import Option, Registry

LOSSES = Registry("loss", group="Training", help="loss of an image", default="cross_entropy")

LOSSES.register(
    "cross_entropy",
    "minus the logarithm of the right class's probability",
    "skinfl.federation.objective:CrossEntropy",
)
LOSSES.register(
    "focal",
    "cross entropy that counts images less the surer the network is of them",
    "skinfl.federation.objective:Focal",
    options=(
        Option("focal_gamma", float, 2.0, "how much less focal loss counts sure images", low=0.0, high=5.0),
    ),
)
LOSSES.register(
    "balanced_softmax",
    "cross entropy of logits to which the logarithm of each class's share is added in training",
    "skinfl.federation.objective:BalancedSoftmax",
    uses=("class_shares",),
    # it makes up for rare classes already: weights besides would do so twice
    defaults={"class_weights": "none"},
)
