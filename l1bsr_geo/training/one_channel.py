"""A network of one channel that starts from one of three colours."""

from collections.abc import Mapping

import torch
from torch import Tensor

_COLOURS = 3


def to_one_channel(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Weights of three colours for the same network of one channel; others as they are.

    What reads the colours reads one channel by the sum of their weights (other inputs, such as a
    noise map, follow them and stay), and what writes them by the mean: on grey images the network
    gives the mean of what the other gives. Of FastDVDnet that is so for each of its stages.

    Args:
        state: parameter name to tensor.
        expected: parameter name to shape, of the network that is to start.
    """
    return {name: _fit(v, expected.get(name, v.shape)) for name, v in state.items()}


def _fit(weight: Tensor, shape: torch.Size) -> Tensor:
    if weight.shape == shape or weight.ndim != len(shape):
        return weight
    if weight.shape[1:] == shape[1:] and (len(weight), shape[0]) == (_COLOURS, 1):
        return weight.mean(0, keepdim=True)
    reads = weight.ndim == 4 and weight.shape[1] - shape[1] == _COLOURS - 1
    if reads and (len(weight), *weight.shape[2:]) == (shape[0], *shape[2:]):
        colours, others = weight[:, :_COLOURS], weight[:, _COLOURS:]
        return torch.cat([colours.sum(1, keepdim=True), others], 1)
    return weight
