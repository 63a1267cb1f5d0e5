"""Where restorers compute: how many at a time, and how pixels get there and back."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import LifoQueue
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from l1bsr_geo.models.base import Padding

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Pixels: TypeAlias = npt.NDArray[np.float32]

SLOTS = {"cuda": 2}
"""How many restorations share a device: on a GPU one computes while pixels of the other travel.
Elsewhere one, which has all cores."""


_new_event = cast("Callable[..., torch.cuda.Event]", torch.cuda.Event)  # they are untyped
_new_stream = cast("Callable[..., torch.cuda.Stream]", torch.cuda.Stream)


@dataclass(frozen=True, eq=False)
class Slot:
    """One restoration's place on a device.

    A GPU's slots have a stream each, so that one copies while the other computes; memory that was
    freed on a stream is used again on it, so it is bounded by the slots.

    Attributes:
        device: where it is.
        stream: its own, on a GPU.
        launching: held by the one that gives work to the device.
    """

    device: torch.device
    stream: "torch.cuda.Stream | None"
    launching: threading.Lock

    @contextmanager
    def launch(self) -> Iterator[None]:
        """Give work to the device; it is not waited for, and one thread does so at a time."""
        if self.stream is None:
            yield
            return
        with self.launching, torch.cuda.stream(self.stream):
            yield

    def send(self, staged: Tensor) -> Tensor:
        """A tensor of ``stage`` on the device; on a CPU it is the same one."""
        return staged.to(self.device, non_blocking=True)

    def fetch(self, result: Tensor) -> "Arrival":
        """Begin to bring a float32 result back."""
        if self.stream is None:
            return Arrival(result.contiguous(), None)
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        host.copy_(result, non_blocking=True)
        done = _new_event(blocking=True)  # the waiting thread sleeps
        done.record(self.stream)
        return Arrival(host, done)


@dataclass(frozen=True, eq=False)
class Arrival:
    """A result on its way to the host."""

    host: Tensor
    done: "torch.cuda.Event | None"

    def wait(self) -> Pixels:
        """The result, once it is there; to be called outside of ``Slot.launch``."""
        if self.done is not None:
            self.done.synchronize()
        return cast("Pixels", self.host.numpy())


class Slots:
    """The slots of a device; whoever comes when all are taken waits.

    Args:
        device: theirs.
        count: how many.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        self._free: LifoQueue[Slot] = LifoQueue()
        launching = threading.Lock()
        for _ in range(count):
            stream = _new_stream(device) if device.type == "cuda" else None
            self._free.put(Slot(device, stream, launching))

    @contextmanager
    def take(self) -> Iterator[Slot]:
        """A slot; it must be given back before the same thread takes another."""
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)


def find_slots(device: torch.device) -> Slots:
    """The slots of a device, the same ones in all of the process."""
    with _MAKING:
        if device not in _SLOTS:
            _SLOTS[device] = Slots(device, SLOTS.get(device.type, 1))
        return _SLOTS[device]


_SLOTS: dict[torch.device, Slots] = {}
_MAKING = threading.Lock()


def pick_device(device: Device) -> torch.device:
    """The device of a name, in this process; ``"auto"`` is a GPU where there is one."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def stage(
    array: npt.NDArray[np.floating], multiple: int, device: torch.device, padding: Padding = "edge"
) -> Tensor:
    """A copy on the host, float32, that a device can take: page-locked where that is a GPU.

    Args:
        array: (..., H, W).
        multiple: H and W are padded to whole multiples.
        device: where it will go.
        padding: by what; a reflection leaves the edge out.
    """
    below, right = (-n % multiple for n in array.shape[-2:])
    width = [(0, 0)] * (array.ndim - 2) + [(0, below), (0, right)]
    padded = torch.from_numpy(np.pad(np.asarray(array, np.float32), width, mode=padding))
    return padded.pin_memory() if device.type == "cuda" else padded


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the host or of a device was not enough."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


_SIGNS = ("DefaultCPUAllocator", "not enough memory", "CUDNN_STATUS_ALLOC", "CUBLAS_STATUS_ALLOC")


def find_room(device: torch.device) -> int | None:
    """What each slot of a GPU could allocate now [bytes]; None elsewhere."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (int(torch.cuda.mem_get_info(device)[0]) + kept) // SLOTS["cuda"]


def release_memory(device: torch.device) -> None:
    """Give back what a GPU's allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@dataclass
class Peak:
    """The most memory that was in use at a time, beyond that at the beginning [bytes]."""

    bytes: int = 0


@contextmanager
def measure_peak(device: torch.device) -> Iterator[Peak]:
    """Watch a GPU's memory; what others do on it meanwhile counts, too. Elsewhere it stays zero."""
    peak = Peak()
    if device.type != "cuda":
        yield peak
        return
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield peak
    peak.bytes = torch.cuda.max_memory_allocated(device) - before
