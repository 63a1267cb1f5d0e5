"""Restored tiles on a shelf: what they cost is not lost when a run is killed."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Protocol, TypeAlias

from dask.core import get_dependencies

Graph: TypeAlias = Mapping[Any, Any]
Deliver: TypeAlias = Callable[[Any, Any], None]

_RESTORE = "restore-tiles"


class Shelf(Protocol):
    """Where restored tiles wait until all that is made of them is delivered.

    A run that is killed need not restore them again.
    """

    def has(self, name: str) -> bool:
        """Whether a tile is there."""

    def load(self, name: str) -> Any:
        """What was kept under this name."""

    def keep(self, name: str, tile: Any) -> None:
        """Keep a tile."""

    def drop(self, name: str) -> None:
        """Nothing more will be asked of a tile."""


class ShelvedGraph:
    """A graph whose restored tiles wait on a shelf for the wanted keys that need them.

    What is handed from task to task are names on the shelf, so memory does not grow with the number
    of tiles that wait: a task that shows parts of tiles takes them from the shelf itself.
    """

    def __init__(self, graph: Graph, keys: Sequence[Any], shelf: Shelf, deliver: Deliver) -> None:
        self._shelf, self._deliver, self._lock = shelf, deliver, Lock()
        names = {_name(key) for key in graph if restores(key)}
        labels = Counter(map(_label, names))
        tiles_of = _find_tiles(graph, keys)
        shown = Counter(tile for tiles in tiles_of.values() for tile in tiles)
        # what becomes one wanted key, and that of nothing else, does not wait
        single = (tile for tiles in tiles_of.values() if len(tiles) == 1 for tile in tiles)
        alone = {tile for tile in single if shown[tile] == 1}
        places = {
            key: f"{label}-{key[1]}"
            for key in graph
            if restores(key) and key not in alone and labels[label := _label(_name(key))] == 1
        }
        if len(places) == 1:  # what it cost is lost or had as a whole
            places = {}
        self._tiles = {
            key: [places[tile] for tile in tiles if tile in places]
            for key, tiles in tiles_of.items()
        }
        self._waiting = Counter(place for tiles in self._tiles.values() for place in tiles)
        taken = {
            key: (_take_from, shelf, places[task[1]], *task[1:])
            for key, task in graph.items()
            if type(task) is tuple and task[0] is take_tile and task[1] in places
        }
        self.graph = {
            key: taken[key] if key in taken else _substitute(task, taken)
            for key, task in graph.items()
        }
        for key, place in places.items():
            if shelf.has(place):
                self.graph[key] = None
            else:
                self.graph["new", *key] = graph[key]
                self.graph[key] = (shelf.keep, place, ("new", *key))

    def deliver(self, key: Any, result: Any) -> None:
        """Hand over a result, then clear the shelf of what only it was waiting for."""
        self._deliver(key, result)
        with self._lock:
            self._waiting.subtract(self._tiles[key])
            done = [place for place in self._tiles[key] if not self._waiting[place]]
        for place in done:
            self._shelf.drop(place)


def take_tile(tiles: Sequence[tuple[Any, Any]], place: int, which: int) -> Any:
    """Pixels (0) or validity (1) of one of the tiles that were restored at once.

    The only thing that a graph may do with what a task that restores gives.
    """
    return tiles[place][which]


def _take_from(shelf: Shelf, name: str, there: None, place: int, which: int) -> Any:
    return take_tile(shelf.load(name), place, which)


def _substitute(task: Any, taken: Mapping[Any, Any]) -> Any:
    """A task that takes from the shelf what it would have been given."""
    if type(task) is list:
        return [_substitute(part, taken) for part in task]
    if type(task) is tuple and task and callable(task[0]):
        return (task[0], *(_substitute(part, taken) for part in task[1:]))
    if type(task) is tuple and task and isinstance(task[0], str):
        return taken.get(task, task)
    return task


def _find_tiles(graph: Graph, keys: Sequence[Any]) -> dict[Any, frozenset[Any]]:
    """Which restored tiles every wanted key is made of."""
    found: dict[Any, frozenset[Any]] = {}
    waiting = list(keys)
    while waiting:
        key = waiting[-1]
        needed = [] if restores(key) else get_dependencies(graph, key)
        unknown = [k for k in needed if k not in found]
        if unknown:
            waiting += unknown
            continue
        found[key] = frozenset([key] if restores(key) else []).union(*(found[k] for k in needed))
        waiting.pop()
    return {key: found[key] for key in keys}


def name_restoration(what: str) -> str:
    """What the names of tasks that restore tiles begin with.

    Such tasks need a GPU slot, where workers declare some, and their results are worth keeping.

    Args:
        what: they restore, and how; said alike in every process.
    """
    return f"{_RESTORE}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def restores(key: Any) -> bool:
    """Whether a key of a dask graph is of a task that restores tiles."""
    return isinstance(key, tuple) and _name(key).startswith(_RESTORE)


def _label(name: str) -> str:
    """Of a restoration, without the token that differs from graph to graph."""
    return name.removeprefix(f"{_RESTORE}-").split("-")[0]


def _name(key: Any) -> str:
    return str(key[0] if isinstance(key, tuple) else key)
