"""In how many bits a restorer computes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

import torch
from torch import nn

from l1bsr_geo.models.base import Restorer

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]

P = ParamSpec("P")
T = TypeVar("T")

_CONVOLVING = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16: GPUs from Ampere on, AVX512-BF16, AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # torch says it in public from 2.10 on, in private before
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        there = capabilities()
        return bool(there.get("avx512_bf16") or there.get("amx_bf16"))
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in _PRIVATE)
    return any(ask() for ask in asked if ask is not None)


_PRIVATE = ("avx512_bf16", "amx_tile")


def takes_bf16(restorer: Restorer) -> bool:
    """Whether a restorer is a network with something to multiply.

    Splines and solvers are not; a module can say ``full_precision = True``, as those do that find
    motion: eight bits of mantissa are no sub-pixel.
    """
    if not isinstance(restorer, nn.Module) or getattr(restorer, "full_precision", False):
        return False
    return any(isinstance(module, _CONVOLVING) for module in restorer.modules())


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Runs convolutions in a precision; ``"auto"`` that nobody settled is fp32."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def full_precision() -> Iterator[None]:
    """Without autocast: eight bits of mantissa are no radiometry and no geometry."""
    with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        yield


def in_full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function in ``full_precision``; what it is given is not converted."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with full_precision():
            return function(*args, **kwargs)

    return run
