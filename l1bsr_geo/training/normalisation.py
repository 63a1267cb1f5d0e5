"""Which statistics batch normalisation uses while a network is trained."""

from typing import Literal, TypeAlias, get_args

from torch import nn

from l1bsr_geo.errors import BadOptionError

Statistics: TypeAlias = Literal["batch", "running"]
"""Those of the samples at hand, which slowly enter the network's own, or those that it has.

With few samples in a batch, and noise of any level among them, a network comes to rely on
statistics that it does not have when it is used: it should end its training with its own.
"""


def check_statistics(statistics: str) -> None:
    """Refuse others than ``Statistics``.

    Raises:
        BadOptionError: there are no such statistics.
    """
    if statistics not in get_args(Statistics):
        raise BadOptionError(
            f"statistics: found {statistics!r}, allowed {', '.join(get_args(Statistics))}"
        )


def freeze_statistics(network: nn.Module) -> None:
    """Let batch normalisation use the statistics that it has, and not change them."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
