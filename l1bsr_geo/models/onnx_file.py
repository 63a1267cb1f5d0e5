"""ONNX files, run by onnxruntime."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.file_facts import METADATA
from l1bsr_geo.models.graphs import GraphError, GraphInput

if TYPE_CHECKING:
    import onnx
    import onnxruntime

log = logging.getLogger(__name__)

_KINDS = {"tensor(float)": "float32"}
_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


class OnnxGraph:
    """A graph in a session of onnxruntime: float32, all cores that torch may use, no more.

    Args:
        content: of the file.
        where: its name, for messages.
        device: where it runs. On a GPU the CUDA provider of onnxruntime does it, if there is one.

    Raises:
        BadOptionError: onnxruntime is not installed.
        BadInputError: no ONNX file, one that is cut off, whose weights are in other files, or with
            operators that onnxruntime does not have.
    """

    def __init__(self, content: bytes, where: str, device: torch.device) -> None:
        require_onnx()
        import onnxruntime

        model = _parse(content, where)
        _refuse_other_files(model, where)
        self.metadata = {p.key: p.value for p in model.metadata_props}.get(METADATA)
        del model
        failures: Any = onnxruntime.capi.onnxruntime_pybind11_state
        try:
            self._session = onnxruntime.InferenceSession(
                content, _choose_options(), providers=_choose_providers(device)
            )
        except (failures.Fail, failures.NotImplemented, failures.InvalidGraph, RuntimeError) as e:
            raise BadInputError(f"{where}: onnxruntime cannot run it: {_one_line(e)}") from None
        self.inputs = tuple(
            GraphInput(i.name, tuple(map(_length, i.shape)), _KINDS.get(i.type, i.type))
            for i in self._session.get_inputs()
        )

    def run(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """See Graph."""
        given = {
            i.name: array.cpu().contiguous().numpy()
            for i, array in zip(self.inputs, arrays, strict=True)
        }
        try:
            results = self._session.run(None, given)
        except Exception as error:  # onnxruntime's own kinds, which derive from nothing else
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise MemoryError(_one_line(error)) from None
            raise GraphError(_one_line(error)) from None
        return tuple(torch.from_numpy(r).to(arrays[0].device) for r in results)


def require_onnx() -> None:
    """Refuse where the packages are missing.

    Raises:
        BadOptionError: says what to install.
    """
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise BadOptionError(
            f"ONNX files need the package {' and '.join(missing)}; pip install 'l1bsr-geo[onnx]'"
        )


def _parse(content: bytes, where: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        model = onnx.ModelProto()
    if not model.graph.output:
        raise BadInputError(f"{where}: is not an ONNX file, or it is cut off")
    return model


def _refuse_other_files(model: onnx.ModelProto, where: str) -> None:
    """All of a graph is in its file: then its sha256 says what it is, and no path is followed."""
    from onnx import TensorProto

    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise BadInputError(
                f"{where}: has weights in other files ({tensor.name[:100]!r}), but a model is one "
                f"file here; write it whole: onnx.save(onnx.load({where!r}), 'whole.onnx')"
            )
    unknown = {part.domain for part in model.opset_import} - set(_STANDARD)
    if unknown:
        raise BadInputError(
            f"{where}: has operators of {', '.join(sorted(unknown))[:200]}, which onnxruntime has "
            "not; export it with standard operators"
        )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a file holds, in graphs within graphs and functions, too."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse = (attribute.sparse_tensor, *attribute.sparse_tensors)
            yield from (t for s in sparse for t in (s.values, s.indices))
            for graph in (attribute.g, *attribute.graphs):
                yield from _of_graph(graph)


def _choose_options() -> onnxruntime.SessionOptions:
    """As torch does: one restoration at a time has all cores (``devices.SLOTS``)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is in our one line
    # threads that wait for work must leave the cores to those that read and resample
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _choose_providers(device: torch.device) -> list[Any]:
    import onnxruntime

    if device.type != "cuda":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        log.warning("this onnxruntime has no CUDA: ONNX files run on the CPU; pip install "
                    "onnxruntime-gpu in its place")  # fmt: skip
        return ["CPUExecutionProvider"]
    # 10 bits of mantissa are no radiometry
    cuda = {"device_id": device.index or 0, "use_tf32": 0}
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _length(axis: Any) -> int | None:
    return axis if isinstance(axis, int) and axis > 0 else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
