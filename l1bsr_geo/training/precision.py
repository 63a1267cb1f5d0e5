"""Which device and which precision; and bfloat16 for the network alone."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.precision import multiplies_bf16
from l1bsr_geo.training.schedule import Precision

Device: TypeAlias = Literal["auto", "cpu", "cuda"]


def pick_device(device: Device) -> torch.device:
    """The device of a name; ``"auto"`` is a GPU where there is one.

    Raises:
        BadOptionError: it is not there.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise BadOptionError("device cuda: torch finds no GPU here; train with cpu or auto")
    return torch.device("cuda" if there and device != "cpu" else "cpu")


def pick_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision of a name; ``"auto"`` is bf16 where the hardware multiplies it."""
    if precision != "auto":
        return precision
    return "bf16" if multiplies_bf16(device) else "fp32"


def name_hardware(device: torch.device) -> str:
    """What a device is, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


@contextmanager
def computing(network: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """Run a network, or a child of it that is called by itself, in a precision.

    What goes in and what comes out stays fp32, and so does all around it: the operators of a loss
    (blur, warp, splat) lose too much in bf16.

    Args:
        network: its results are the same object's; hooks are taken off at the end.
        precision: "fp32" or "bf16".
        device: of the network.
    """
    if precision == "fp32":
        yield
        return
    open_contexts: list[ExitStack] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        context = ExitStack()
        context.enter_context(torch.autocast(device.type, torch.bfloat16))
        open_contexts.append(context)

    def leave(module: nn.Module, inputs: Any, output: Any) -> Any:
        open_contexts.pop().close()
        return output if open_contexts else _as_fp32(output)

    hooks = []
    for module in (network, *network.children()):
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _as_fp32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    if type(output) in (list, tuple):
        return type(output)(map(_as_fp32, output))
    if type(output) is dict:
        return {name: _as_fp32(value) for name, value in output.items()}
    return output
