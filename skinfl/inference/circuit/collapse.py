"""A trained network as three linear maps with a square between them.

What homomorphic encryption evaluates cheaply is a linear map of everything at once; what costs depth is
multiplying ciphertexts. Between two activations everything here is linear (pooling, convolution, batch
normalisation, dropout at rest), so it becomes one matrix. The activation is one square,

    0.125 x² + 0.5 x + 0.25 = (sqrt(0.125) (x + 2))² - 0.25,

whose inner scale and shift go into the map before it and whose -0.25 goes into the map after it. Nothing
is approximated: the logits are those of the network.
"""

from __future__ import annotations

import copy
import math
from typing import Any, List, Tuple

import numpy as np
import torch
from torch import nn

from skinfl.errors import ModelError
from skinfl.inference.circuit.network import Collapsed
from skinfl.models import DOConv2d, QuadraticActivation, SkinNet, fold_model
from skinfl.models.activation import COEFFICIENTS

#: layers that are linear (affine) maps once training is over
_LINEAR = (
    nn.Conv2d,
    DOConv2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)


def collapse(model: nn.Module, *, in_channels: int, image_size: int) -> Collapsed:
    """Collapse a trained network for images of ``in_channels`` and ``image_size`` pixels.

    ``model`` is a :class:`~skinfl.models.SkinNet`, or an ``nn.Sequential`` of linear layers with exactly
    two :class:`~skinfl.models.QuadraticActivation` whose first stage is one convolution, batch-normalised or
    not. Batch normalisation counts with its running statistics, dropout not at all, as in evaluation mode;
    the model itself is not changed.

    Raises :class:`~skinfl.errors.ModelError` that says why for any other network.
    """
    first, second, third = _stages(fold_model(copy.deepcopy(model).double().eval()))
    conv, bias, stride, padding = _first_convolution(first, in_channels)
    side = (image_size + 2 * padding - conv.shape[2]) // stride + 1
    hidden, hidden_bias = _matrix(second, (len(conv), side, side))
    output, output_bias = _matrix(third, (len(hidden_bias),))

    a, b, c = COEFFICIENTS
    scale, shift, constant = math.sqrt(a), b / (2 * a), c - b * b / (4 * a)
    collapsed = Collapsed(
        conv=conv * scale,
        conv_bias=(bias + shift) * scale,
        hidden=hidden * scale,
        hidden_bias=(hidden_bias + constant * hidden.sum(1) + shift) * scale,
        output=output,
        output_bias=output_bias + constant * output.sum(1),
        image_size=image_size,
        stride=stride,
        padding=padding,
    )
    if not all(np.isfinite(array).all() for array in collapsed[:6]):
        raise ModelError(
            "the network has weights that are not numbers: its training diverged, train it again"
        )
    return collapsed


def _stages(model: nn.Module) -> List[nn.Sequential]:
    """Cut the network at its two activations."""
    if isinstance(model, SkinNet):
        layers: List[nn.Module] = [
            model.conv1,
            model.activation,
            model.pool,
            model.conv2,
            model.pool,
            nn.Flatten(),
        ]
        layers += [nn.Flatten(), model.hidden, model.activation, model.output]
    elif isinstance(model, nn.Sequential):
        layers = list(model)
    else:
        raise ModelError(
            f"{type(model).__name__} cannot be evaluated under encryption: it needs a network whose only "
            "non-linear layers are two quadratic activations; train the model 'skinnet'"
        )
    stages: List[List[nn.Module]] = [[]]
    for layer in layers:
        if isinstance(layer, QuadraticActivation):
            stages.append([])
        elif isinstance(layer, _LINEAR):
            stages[-1].append(layer)
        else:
            raise ModelError(
                f"a layer {type(layer).__name__} cannot be evaluated under encryption: it is neither linear "
                "nor the quadratic activation"
            )
    if len(stages) != 3:
        raise ModelError(f"{len(stages) - 1} quadratic activations: encrypted inference takes exactly two")
    return [nn.Sequential(*stage) for stage in stages]


def _first_convolution(stage: nn.Sequential, in_channels: int) -> Tuple[np.ndarray, np.ndarray, int, int]:
    """Return kernel, bias, stride and padding of a convolution with its batch normalisation."""
    kinds = [type(layer) for layer in stage if not isinstance(layer, (nn.Identity, nn.Dropout, nn.Dropout2d))]
    if kinds not in ([nn.Conv2d], [nn.Conv2d, nn.BatchNorm2d]):
        raise ModelError("before its first activation the network must have one zero-padded convolution only")
    layers = [layer for layer in stage if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d))]
    conv: Any = layers[0]
    geometry = (conv.kernel_size, conv.stride, conv.padding)
    plain = conv.groups == 1 and tuple(conv.dilation) == (1, 1) and conv.padding_mode == "zeros"
    if not plain or any(isinstance(pair, str) or pair[0] != pair[1] for pair in geometry):
        raise ModelError(
            "the first convolution must be square and zero-padded, without groups or dilation, to be "
            "evaluated under encryption"
        )
    if conv.in_channels != in_channels:
        raise ModelError(f"the network takes {conv.in_channels} channels, the images have {in_channels}")
    with torch.no_grad():
        weight = conv.weight
        bias = torch.zeros(len(weight)).to(weight) if conv.bias is None else conv.bias
        if len(layers) == 2:
            norm = layers[1]
            # An affine map per channel: what it does to 0 and to 1 says all of it.
            probe = torch.stack([torch.zeros(len(weight)), torch.ones(len(weight))]).to(weight)
            at_zero, at_one = norm(probe[:, :, None, None])[:, :, 0, 0]
            slope = at_one - at_zero
            weight, bias = weight * slope[:, None, None, None], bias * slope + at_zero
    return weight.detach().numpy(), bias.detach().numpy(), conv.stride[0], conv.padding[0]


def _matrix(stage: nn.Sequential, shape: Tuple[int, ...]) -> Tuple[np.ndarray, np.ndarray]:
    """Return matrix (outputs, inputs) and constant (outputs,) of an affine stage for inputs of ``shape``.

    The matrix's rows are the gradients of the outputs, which for a linear map are the same everywhere: one
    backward pass over as many copies of the input as there are outputs.
    """
    try:
        with torch.no_grad():
            constant = stage(torch.zeros((1, *shape), dtype=torch.float64))[0]
        outputs = len(constant.reshape(-1))
        copies = torch.zeros((outputs, *shape), dtype=torch.float64, requires_grad=True)
        matrix = torch.autograd.grad(stage(copies).diagonal().sum(), copies)[0]
    except RuntimeError as error:
        raise ModelError(f"the network's layers do not fit images of this size: {error}") from error
    if constant.dim() != 1:
        raise ModelError("the network's stages must end in a vector: a Flatten or Linear layer is missing")
    return matrix.reshape(outputs, -1).numpy(), constant.numpy()
