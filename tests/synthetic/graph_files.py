"""Small networks as files: ONNX graphs written node by node, and archives that were tampered with.

Their truth is ``enlarge``: the same network by torch's own functions.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

REACH = 2
"""[px] how far the network looks: two convolutions of 3 x 3."""

SCALE = 2


def weights(bands: int = 4) -> list[Tensor]:
    """Kernels and offsets of its convolutions."""
    random = torch.Generator().manual_seed(bands)
    shapes = [(8, bands, 3, 3), (8,), (SCALE**2 * bands, 8, 3, 3), (SCALE**2 * bands,)]
    return [torch.randn(shape, generator=random) / 4 for shape in shapes]


def enlarge(image: Tensor) -> Tensor:
    """The network: (B, C, H, W) to (B, C, 2 H, 2 W)."""
    first, at, second, shift = weights(image.shape[1])
    deep = functional.conv2d(image, first, at, padding=1).relu()
    return functional.pixel_shuffle(functional.conv2d(deep, second, shift, padding=1), SCALE)


def write_onnx(
    path: Path,
    *,
    shape: tuple[int | str, ...] = ("b", 4, "h", "w"),
    kind: int = TensorProto.FLOAT,
    last: bool = False,
    spoil: Callable[[onnx.ModelProto], None] | None = None,
) -> Path:
    """The network as an ONNX file.

    Args:
        path: to write.
        shape: of its input; text for an axis of any length.
        kind: of its input's numbers.
        last: whether its channels are last.
        spoil: changes the graph before it is written.
    """
    tensors = weights(4 if not isinstance(shape[1], int) or last else shape[1])
    names = ["first", "at", "second", "shift"]
    conv = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "first", "at"], ["a"], **conv),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "second", "shift"], ["c"], **conv),
        helper.make_node("DepthToSpace", ["c"], ["fine"], blocksize=SCALE, mode="CRD"),
    ]
    given, gives = "image", "fine"
    if last:
        nodes.insert(0, helper.make_node("Transpose", ["rows"], ["image"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Transpose", ["fine"], ["out"], perm=[0, 2, 3, 1]))
        given, gives = "rows", "out"
    if kind != TensorProto.FLOAT:
        nodes.insert(0, helper.make_node("Cast", ["other"], ["image"], to=TensorProto.FLOAT))
        given = "other"
    graph = helper.make_graph(
        nodes,
        "enlarge",
        [helper.make_tensor_value_info(given, kind, shape)],
        [helper.make_tensor_value_info(gives, TensorProto.FLOAT, ["B", "C", "H", "W"])],
        [numpy_helper.from_array(t.numpy(), n) for t, n in zip(tensors, names, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if spoil is not None:
        spoil(model)
    path.write_bytes(model.SerializeToString())
    return path


def write_spec(path: Path, graph: str = "net.onnx", **more: object) -> Path:
    """A YAML spec of it; keys that are None are left out."""
    told = {"model": graph, "bands": ["B02", "B03", "B04", "B08"], "gain": 400} | more
    lines = [f"{k}: {v}".replace("'", "") for k, v in told.items() if v is not None]
    path.write_text("\n".join(lines) + "\n")
    return path


def rewrite_archive(source: Path, path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of a zip file with other contents.

    Args:
        source: the file.
        path: to write.
        change: gives the new content of an entry, from its name in the archive and its content.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            name = entry.filename.partition("/")[2]
            new.writestr(entry.filename, change(name, old.read(entry)))
    return path


def random_views(*shape: int) -> np.ndarray:
    """Pixels of 0 to 1000 DN."""
    return np.random.default_rng(7).uniform(0, 1000, shape).astype(np.float32)
