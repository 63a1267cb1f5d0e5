"""The log of a training: JSON lines, and TensorBoard where it is asked for."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.training.checkpoints import write_whole

LOG = "log.jsonl"


class RunLog:
    """Lines with an iteration each; a context that closes its files.

    Args:
        folder: of the training.
        iteration: the last that is done; later lines, of a session that crashed, are dropped, since
            they will be written again. At 0 all are.
        tensorboard: also write events that TensorBoard shows.

    Raises:
        BadOptionError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, iteration: int = 0, tensorboard: bool = False) -> None:
        self._board = _open_board(folder) if tensorboard else None
        self._path = folder / LOG
        if self._path.is_file():
            lines = read_log(folder) if iteration else []
            kept = [line for line in lines if line["iteration"] <= iteration]
            text = "".join(f"{json.dumps(line)}\n" for line in kept)
            write_whole(self._path, lambda path: path.write_text(text, "utf-8"))
        self._file = self._path.open("a", encoding="utf-8")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, iteration: int, values: Mapping[str, Any]) -> None:
        """Add a line; it is on disk when this returns. What is not finite becomes null."""
        line = {"iteration": iteration} | _finite(values)
        self._file.write(f"{json.dumps(line)}\n")
        self._file.flush()
        if self._board is not None:
            for name, value in _name_numbers(values):
                self._board.add_scalar(name, value, iteration)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training's log; one that a crash cut off is left out."""
    lines = []
    for text in (folder / LOG).read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _open_board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BadOptionError(
            "TensorBoard is not installed; install it with pip install 'l1bsr-geo[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain[name] = _finite(value)
        else:
            plain[name] = value if not isinstance(value, float) or math.isfinite(value) else None
    return plain


def _name_numbers(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    numbers: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            numbers += [(f"{name}/{part}", v) for part, v in _name_numbers(value)]
        elif isinstance(value, int | float):
            numbers.append((name, float(value)))
    return numbers
