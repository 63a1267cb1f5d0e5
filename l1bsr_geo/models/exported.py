"""Programs of ``torch.export`` (.pt2), read as data.

``torch.export.load`` unpickles what a file holds and looks up any function that it names, so it
runs what a stranger wrote (its documentation says so). Here the archive is read by hand: weights
are raw numbers, the graph is a list of calls, and only operators that compute are called
(``exported_operators``). Pickles in the file are not touched; a program that needs one is refused.
"""

import io
import json
import math
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.models.devices import ran_out_of_memory
from l1bsr_geo.models.exported_operators import does_nothing, find_operator
from l1bsr_geo.models.file_facts import METADATA
from l1bsr_geo.models.graphs import GraphError, GraphInput

# numbers of torch._export.serde.schema, which files hold
_TYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_MAJOR = 8  # of the schema


class ExportedGraph:
    """A program, node by node.

    Args:
        content: of the file.
        where: its name, for messages.
        device: where it runs.

    Raises:
        BadInputError: no program of torch 2.8 or newer, one that is cut off, with pickled weights,
            or with functions that do not only compute.
    """

    def __init__(self, content: bytes, where: str, device: torch.device) -> None:
        try:
            archive = _Archive(content)
            self.metadata = archive.read_text(f"extra/{METADATA}.json", optional=True)
            program = archive.read_program()
            module = program["graph_module"]
            self._device = device
            self._graph = module["graph"]
            self._bound, names = _bind(archive, module["signature"], device)
            self._inputs = names
            self.inputs = tuple(self._describe(name) for name in names)
            self._outputs = [
                str(spec["user_output"]["arg"]["as_tensor"]["name"])
                for spec in module["signature"]["output_specs"]
            ]
            self._calls = list(self._read_calls())
            self._last_uses = self._find_last_uses()
        except _RefusedError as error:
            raise BadInputError(f"{where}: {error}") from None
        except _BROKEN as error:
            what = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise BadInputError(
                f"{where}: is not a program of torch.export that can be read here ({what})"
            ) from None

    def run(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """See Graph."""
        values: dict[str, Any] = dict(self._bound)
        values.update(zip(self._inputs, arrays, strict=True))
        try:
            for call, done in zip(self._calls, self._last_uses, strict=True):
                call.into(values)
                for name in done:
                    del values[name]
            return tuple(values[name] for name in self._outputs)
        except (RuntimeError, IndexError, TypeError, ValueError, KeyError) as error:
            if ran_out_of_memory(error):
                raise
            raise GraphError(" ".join(str(error).split())[:300]) from None

    def _describe(self, name: str) -> GraphInput:
        about = self._graph["tensor_values"][name]
        kind = str(_TYPES[about["dtype"]]).removeprefix("torch.")
        return GraphInput(name, tuple(size.get("as_int") for size in about["sizes"]), kind)

    def _read_calls(self) -> Iterator["_Call"]:
        for node in self._graph["nodes"]:
            if does_nothing(node["target"]):
                continue
            function = find_operator(node["target"])
            if function is None:
                raise _RefusedError(
                    f"calls {str(node['target'])[:100]}, which is not among the operators that "
                    "are run here; export it as ONNX"
                )
            read = [(i["name"], _read(i["arg"], self._device), i["kind"]) for i in node["inputs"]]
            results = [name for output in node["outputs"] for name in _names(output)]
            as_list = len(results) != 1 or "as_tensors" in node["outputs"][0]
            yield _Call(
                function,
                [value for _, value, kind in read if kind != 2],
                {name: value for name, value, kind in read if kind == 2},
                results,
                as_list,
            )

    def _find_last_uses(self) -> list[list[str]]:
        """After each call, the names that nobody needs any more."""
        seen = {*self._outputs, *self._bound}
        last: list[list[str]] = []
        for call in reversed(self._calls):
            done = sorted({*call.names, *call.results} - seen)
            seen.update(done)
            last.append(done)
        return last[::-1]


@dataclass(frozen=True)
class _Name:
    """Stands for a value that an earlier call gave."""

    text: str


@dataclass(frozen=True)
class _Call:
    """One node."""

    function: Callable[..., Any]
    arguments: list[Any]
    keywords: dict[str, Any]
    results: list[str]
    as_list: bool

    @property
    def names(self) -> set[str]:
        """What it reads."""
        found = set()
        for value in (*self.arguments, *self.keywords.values()):
            parts = value if isinstance(value, list) else [value]
            found |= {part.text for part in parts if isinstance(part, _Name)}
        return found

    def into(self, values: dict[str, Any]) -> None:
        """Call it, and keep what it gives."""
        result = self.function(
            *(_look_up(value, values) for value in self.arguments),
            **{name: _look_up(value, values) for name, value in self.keywords.items()},
        )
        values.update(zip(self.results, result if self.as_list else [result], strict=True))


def _look_up(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, _Name):
        return values[value.text]
    if isinstance(value, list):
        return [_look_up(part, values) for part in value]
    return value


def _read(argument: dict[str, Any], device: torch.device) -> Any:
    """An argument: a constant, a ``_Name``, or a list of them."""
    ((kind, value),) = argument.items()
    match kind:
        case "as_none":
            return None
        case "as_name":
            return _Name(str(value))
        case "as_tensor":
            return _Name(str(value["name"]))
        case "as_int" | "as_float" | "as_bool" | "as_string" | "as_ints" | "as_floats" | "as_bools":
            return value
        case "as_sym_int" | "as_sym_float" | "as_sym_bool" | "as_optional_tensor":
            return _read(value, device)
        case "as_tensors":
            return [_Name(str(v["name"])) for v in value]
        case "as_sym_ints" | "as_sym_floats" | "as_sym_bools" | "as_optional_tensors":
            return [_read(v, device) for v in value]
        case "as_scalar_type":
            return _TYPES[value]
        case "as_memory_format":
            return _FORMATS[value]
        case "as_layout" if value == 7:
            return torch.strided
        case "as_device":
            return device
    raise _RefusedError(f"has an argument of the kind {kind[:50]}, which is not read here")


def _names(output: dict[str, Any]) -> list[str]:
    """What a node's output is called; of a list, each of its parts."""
    ((kind, value),) = output.items()
    if kind == "as_tensors":
        return [str(v["name"]) for v in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return [str(value["as_name"])]
    if kind != "as_tensor":
        raise _RefusedError(f"has an output of the kind {kind[:50]}, which is not read here")
    return [str(value["name"])]


def _bind(
    archive: "_Archive", signature: dict[str, Any], device: torch.device
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights by their names in the graph, and the names of what is given when it is run."""
    weights, bound, free = archive.read_tensors(), {}, []
    for spec in signature["input_specs"]:
        ((kind, about),) = spec.items()
        if kind == "user_input":
            free.append(str(about["arg"]["as_tensor"]["name"]))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            bound[str(about["arg"]["name"])] = weights[about[f"{kind}_name"]].to(device)
        else:
            raise _RefusedError(f"takes an input of the kind {kind[:50]}, which is not read here")
    return bound, free


class _Archive:
    """The zip file, whose entries stand in one folder."""

    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        entries = self._zip.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise _RefusedError("is compressed, which torch never does; write it anew")
        self._names = {e.filename.partition("/")[2]: e.filename for e in entries}
        if self.read_text("archive_format", optional=True) != "pt2":
            raise _RefusedError(
                "is not an archive of torch.export.save of torch 2.8 or newer; write it anew there"
            )
        if self.read_text("byteorder") != sys.byteorder:
            raise _RefusedError(f"was not written on a {sys.byteorder}-endian machine")

    def read_program(self) -> dict[str, Any]:
        """The one program."""
        there = [n for n in self._names if n.startswith("models/") and n.endswith(".json")]
        if len(there) != 1:
            raise _RefusedError(f"holds {len(there)} programs, expected one")
        program: dict[str, Any] = json.loads(self._read(there[0]))
        found = program["schema_version"]["major"]
        if found != _MAJOR:
            raise _RefusedError(
                f"has version {found} of torch's schema, version {_MAJOR} is read here; write it "
                "with torch 2.8 to 2.13, or export it as ONNX"
            )
        return program

    def read_tensors(self) -> dict[str, Tensor]:
        """Weights and constants by name."""
        found: dict[str, Tensor] = {}
        for kind in ("weights", "constants"):
            folder = f"data/{kind}/"
            for config in [n for n in self._names if n.startswith(folder) and "config" in n]:
                for name, about in json.loads(self._read(config))["config"].items():
                    found[name] = self._read_tensor(folder, name, about)
        return found

    def read_text(self, name: str, *, optional: bool = False) -> str | None:
        """A small entry; None where there is none, if that may be."""
        if optional and name not in self._names:
            return None
        return self._read(name).decode().strip()

    def _read_tensor(self, folder: str, name: str, about: dict[str, Any]) -> Tensor:
        if about["use_pickle"] or about["tensor_meta"] is None:
            raise _RefusedError(
                f"its weight {name[:100]} is a pickle, which can hold code; make weights plain "
                "tensors (contiguous, on the CPU) before they are exported"
            )
        meta = about["tensor_meta"]
        flat = torch.frombuffer(
            bytearray(self._read(folder + about["path_name"])) or bytearray(8),
            dtype=_TYPES[meta["dtype"]],
        )
        sizes, strides = ([int(v["as_int"]) for v in meta[n]] for n in ("sizes", "strides"))
        if math.prod(sizes) > max(1, flat.numel()):
            raise _RefusedError(f"its weight {name[:100]} is larger than what the file holds")
        # a clone: every weight by itself, in memory of its own
        return flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"])).clone()

    def _read(self, name: str) -> bytes:
        return self._zip.read(self._names[name])


class _RefusedError(Exception):
    """Why a file is not read; the caller says which."""


_BROKEN = (
    *(zipfile.BadZipFile, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError),
    *(RuntimeError, NotImplementedError, RecursionError, UnicodeDecodeError, OverflowError),
)
"""What reading a file raises that is cut off or forged."""
