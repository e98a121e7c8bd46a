"""What local training minimises: a loss of each image, smoothed labels, class weights, mixed images.

All of it is written out in operations that torch 1.4 has, so that both environments compute the same.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from skinfl.errors import TrainingError
from skinfl.federation.losses import LOSSES


class CrossEntropy(nn.Module):
    """``-log p_c`` with ``p = softmax(logits)``; for logits of shape (n, classes) the loss of every class c.

    So do the other losses of this module: what a label costs is picked out by :class:`Objective`.
    """

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return -functional.log_softmax(logits, dim=1)


class Focal(nn.Module):
    """``-(1 - p_c)^gamma log p_c``.

    Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, equation 4; ``focal_gamma`` is its gamma,
    and 0 is the cross entropy.
    """

    def __init__(self, focal_gamma: float):
        super().__init__()
        self.gamma = focal_gamma

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        log_p = functional.log_softmax(logits, dim=1)
        # 1 - p without cancellation; at 0 a root of it would have no slope
        others = (-torch.expm1(log_p)).clamp(min=1e-7)
        return -(others**self.gamma) * log_p


class BalancedSoftmax(nn.Module):
    """``-log q_c`` with ``q = softmax(logits + log share)``, the classes' shares of all training images.

    Ren et al., *Balanced Meta-Softmax for Long-Tailed Visual Recognition*, NeurIPS 2020, equation 4; the
    logit-adjusted loss of Menon et al., *Long-tail learning via logit adjustment*, ICLR 2021, with tau 1.
    Without the addition, as the network is used afterwards, the logits are those of equally frequent classes.

    ``class_shares``: float64, shape ``(classes,)``, all above 0.
    """

    log_shares: torch.Tensor

    def __init__(self, class_shares: np.ndarray):
        super().__init__()
        self.register_buffer("log_shares", torch.as_tensor(np.log(class_shares), dtype=torch.float32))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return -functional.log_softmax(logits + self.log_shares, dim=1)


class Objective(nn.Module):
    """Mean over the batch of ``weight[label] * loss``.

    torch's own weighted mean divides by the batch's weights, so that an image's pull depends on the
    company it is in; here the expectation over batches is the loss over all images.

    Parameters
    ----------
    loss: a module that gives the loss of each class, shape (n, classes), for logits of that shape.
    class_weights: float64, shape ``(classes,)``, or None for 1 each.
    label_smoothing: share of a label, 0 to below 1, that is spread evenly over all classes, its own included
        (Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016, section 7).
        An image keeps its own class's weight.
    """

    weights: Optional[torch.Tensor]

    def __init__(
        self, loss: nn.Module, class_weights: Optional[np.ndarray] = None, label_smoothing: float = 0.0
    ):
        super().__init__()
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.loss = loss
        self.register_buffer("weights", weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss, a scalar.

        ``labels`` are int64, shape (n,), or float32, shape (n, classes), which add up to 1 for each image, as
        :func:`mix` gives them; the loss is linear in these.
        """
        losses = self.loss(logits.float())
        mean = losses.mean(dim=1) if self.label_smoothing else None
        if labels.dim() == 1:
            found = losses.gather(1, labels[:, None])[:, 0]
            if mean is not None:
                found = (1 - self.label_smoothing) * found + self.label_smoothing * mean
            return (found if self.weights is None else self.weights[labels] * found).mean()
        if mean is not None:
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * mean[:, None]
        shares = labels if self.weights is None else labels * self.weights
        return (shares * losses).sum(dim=1).mean()


def objective_of(
    loss: str,
    options: Mapping[str, Any],
    label_smoothing: float,
    class_weights: Optional[np.ndarray],
    class_shares: Optional[np.ndarray],
) -> Objective:
    """Return what training minimises.

    ``loss`` is a name in :data:`~skinfl.federation.losses.LOSSES`, ``options`` are its own. ``class_weights``
    and ``class_shares``: float64, shape ``(classes,)``, see :class:`~skinfl.federation.common.Prepared`.

    Raises :class:`~skinfl.errors.TrainingError` for a loss that needs shares where there are none.
    """
    if class_shares is None and "class_shares" in LOSSES[loss].uses:
        raise TrainingError(f"the loss {loss} needs the classes' shares of the images, which are not known")
    built = LOSSES.build(loss, options, class_shares=class_shares)
    return Objective(built, class_weights, label_smoothing)


def mix(
    images: torch.Tensor, labels: torch.Tensor, classes: int, alpha: float, rng: np.random.Generator
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return a batch in which each image is mixed with another of the batch, and its label likewise.

    ``images``: floats, shape (n, ...); ``labels``: int64, shape (n,). The labels that come back are float32,
    shape (n, classes). One share, drawn from Beta(alpha, alpha), holds for the whole batch; ``rng`` draws it
    and who is mixed with whom. Zhang et al., *mixup: Beyond Empirical Risk Minimization*, ICLR 2018.
    """
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
    return mixed(images, labels, classes, share, other)


def mixed(
    images: torch.Tensor, labels: torch.Tensor, classes: int, share: float, other: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return ``share`` of each image and label and the rest of its partner's, see :func:`mix`.

    ``other``: int64, shape (n,), each image's partner.
    """
    soft = functional.one_hot(labels, classes).to(torch.float32)
    return share * images + (1 - share) * images[other], share * soft + (1 - share) * soft[other]
