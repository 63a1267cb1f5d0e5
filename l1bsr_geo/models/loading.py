"""Restorers that are ready to run: each is made once in a process, whoever asks."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.fusing import fuse_rectifiers


class Identity(NamedTuple):
    """What tells a model from others in a process; device and precision are not in it.

    Attributes:
        name: in ``MODELS``, or one that nobody else has.
        weights_sha256: of its weights, where there are any.
        scale: fine pixels to a pixel.
        own: whether it came with a restorer of one's own.
        spread: how the ensemble is made whose spread it gives; None where it restores.
    """

    name: str
    weights_sha256: str | None
    scale: int
    own: bool
    spread: str | None = None


def load_once(identity: Identity, device: torch.device, make: Callable[[], Restorer]) -> Restorer:
    """The restorer of an identity on a device; models by name stay, of one's own the last few do.

    Args:
        identity: the model's.
        device: where it will run.
        make: gives the restorer, on the host, for this use alone.
    """
    key = identity, device
    with _LOADING:
        if key in _LOADED:
            _LOADED.move_to_end(key)
        else:
            _LOADED[key] = _make_ready(make(), device)
            for other in [key for key in _LOADED if key[0].own][:-_MOST_OWN]:
                del _LOADED[other]
        return _LOADED[key]


_LOADED: OrderedDict[tuple[Identity, torch.device], Restorer] = OrderedDict()
_LOADING = threading.RLock()
_MOST_OWN = 4


def _make_ready(restorer: Restorer, device: torch.device) -> Restorer:
    if isinstance(restorer, nn.Module):
        restorer.requires_grad_(False)
        # convolutions are a quarter faster with the channels last, measured with REC on a CPU
        cast("Any", restorer.eval().to(device)).to(memory_format=torch.channels_last)
        fuse_rectifiers(restorer)
        if device.type == "cuda":  # other streams will use it
            torch.cuda.synchronize(device)
    return restorer
