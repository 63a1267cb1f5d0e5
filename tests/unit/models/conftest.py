"""Weights: those that anyone can rebuild, as in ../shared/golden/README.md, and tiny ones."""

import json
import weakref
import zlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.synthetic.weights import write_tiny_weights


def rebuilt(shapes, gain):
    """The conformance weights for {name: shape}."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        a = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype("f4")
        if name.endswith("running_var"):
            a = np.abs(a) + 0.5
        elif len(shape) >= 2:
            a *= gain / np.sqrt(np.prod(shape[1:]))
        else:
            a = 1 + 0.1 * a if name.endswith("weight") else 0.05 * a
        state[name] = torch.from_numpy(np.asarray(a, np.float32))
    return state


@pytest.fixture(scope="session")
def golden(shared):
    """{case/array: array} of every network's conformance vectors."""
    with np.load(shared / "golden/networks.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def golden_weights(shared):
    """Weights of a network of the golden folder: (name, gain) to {parameter: tensor}."""
    shapes = json.loads((shared / "golden/state_dict_shapes.json").read_text())
    return lambda name, gain=1.0: rebuilt(shapes[name], gain)


@pytest.fixture
def random_weights():
    """Weights for any module, by the same rule: (module, gain) to {parameter: tensor}."""
    return lambda module, gain=0.35: rebuilt(
        {name: tuple(v.shape) for name, v in module.state_dict().items()}, gain
    )


def tensors(tree):
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside, as long as they live."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for tensor in tensors((args, kwargs)):
            self.count(tensor.untyped_storage(), 0)  # was there before
        result = function(*args, **(kwargs or {}))
        for tensor in tensors(result):
            self.count(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        return result

    def count(self, storage, size):
        if storage.data_ptr() in self.known or not storage.nbytes():
            return
        self.known.add(storage.data_ptr())
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.forget, storage.data_ptr(), size)

    def forget(self, pointer, size):
        self.known.discard(pointer)
        self.live -= size


@pytest.fixture
def live_memory():
    """A context that knows the ``peak`` of what tensors took inside."""
    return LiveMemory


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """An empty folder in the place of the weights that ship, beside an empty cache."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr("l1bsr_geo.models.checkpoint.SHIPPED", folder)
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def tiny_weights(tmp_path):
    """Writes random weights of a tiny network of any model; see ``write_tiny_weights``."""

    def write(name, scale=None, **facts):
        (tmp_path / "tiny").mkdir(exist_ok=True)
        return write_tiny_weights(tmp_path / "tiny" / f"{name}.safetensors", name, scale, **facts)

    return write
