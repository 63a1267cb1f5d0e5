"""What a weights file says of its network, believed only as far as the file itself goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules import module

from l1bsr_geo.errors import WeightsError

_PER_TENSOR = 16  # modules and parameters that a network makes for each tensor of its file
_LEAST = 2000  # a small file may be of the usual network, which it does not fit


@contextmanager
def no_larger_than(tensors: int) -> Iterator[None]:
    """Stop building a network of far more parts than a file has tensors for.

    A file of a few bytes can say that its network has a billion blocks; making them would take all
    memory before the first shape could be compared.

    Args:
        tensors: of the file.

    Raises:
        WeightsError: the network is larger.
    """
    most, made = _LEAST + _PER_TENSOR * tensors, 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > most:
            raise WeightsError(f"more than {most} parts, and the file has {tensors} tensors")

    hooks = (
        module.register_module_module_registration_hook(count),
        module.register_module_parameter_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
