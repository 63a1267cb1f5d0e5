"""Weights that anyone can rebuild, as in ../shared/golden/README.md."""

import json
import zlib

import numpy as np
import pytest
import torch


def rebuilt(shapes, gain):
    """The conformance weights for {name: shape}."""
    state = {}
    for name, shape in shapes.items():
        a = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype("f4")
        if len(shape) >= 2:
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
