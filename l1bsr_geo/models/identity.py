"""Which network a module is: a hash that is the same wherever and whenever it is taken."""

import hashlib
import re

import torch
from torch import nn

from l1bsr_geo.models.base import Restorer


def hash_restorer(restorer: Restorer) -> str | None:
    """sha256 of class, spec, layers, parameters and buffers; None where there is nothing to learn.

    Code is not in it, but for the layers as the module prints them.

    Args:
        restorer: on any device, with weights of any type.
    """
    if not isinstance(restorer, nn.Module) or not (state := restorer.state_dict()):
        return None
    kind = type(restorer)
    digest = hashlib.sha256()
    for text in (kind.__module__, kind.__qualname__, restorer.spec, restorer):
        digest.update(re.sub(" at 0x[0-9a-f]+", "", f"{text}\0").encode())
    for name, value in sorted(state.items()):
        if not isinstance(value, torch.Tensor):  # what get_extra_state gave
            digest.update(f"{name} {value}\0".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
