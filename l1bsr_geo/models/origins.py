"""Where the restorer of a `Model` comes from: the registry, the caller's own, or a file."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import torch

from l1bsr_geo.errors import BadOptionError, WeightsError
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.checkpoint import find_weights, read_provenance
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.identity import hash_restorer
from l1bsr_geo.models.loading import Identity
from l1bsr_geo.models.model_file import ModelFile
from l1bsr_geo.models.stored import hash_file


class Origin(Protocol):
    """What a model is made of, anew in each process that it is sent to."""

    @property
    def identity(self) -> Identity:
        """What tells it from others."""
        ...

    @property
    def licence(self) -> str | None:
        """Of the weights, where it is known."""
        ...

    @property
    def facts(self) -> str | None:
        """What a user told of a file, as JSON."""
        ...

    def build(self, device: torch.device) -> Restorer:
        """A restorer for the caller alone."""
        ...


@dataclass(frozen=True)
class Registered:
    """A name in ``MODELS``, with the weights file that was found for it."""

    name: str
    scale: int
    path: Path | None
    sha256: str | None
    licence: str | None
    facts: str | None = None

    @property
    def identity(self) -> Identity:
        """By its name."""
        return Identity(self.name, self.sha256, self.scale, own=False)

    def build(self, device: torch.device) -> Restorer:
        """With its weights, which must be those that were found.

        Raises:
            WeightsError: the file is another one now.
        """
        entry = find_entry(self.name)
        if self.path is None:
            return entry.make(self.scale)
        if hash_file(self.path) != self.sha256:
            raise WeightsError(f"{self.path}: changed since the model was made of it")
        return entry.load(self.path, self.scale)


@dataclass(frozen=True)
class Own:
    """The caller's restorer, copied; it travels whole."""

    restorer: Restorer
    name: str
    sha256: str | None
    licence: str | None = None
    facts: str | None = None

    @property
    def identity(self) -> Identity:
        """By a name that nobody else has."""
        return Identity(self.name, self.sha256, self.restorer.spec.scale, own=True)

    def build(self, device: torch.device) -> Restorer:
        """A copy."""
        return copy.deepcopy(self.restorer)


@dataclass(frozen=True)
class Exported:
    """A file that holds the network itself; it travels as path, hash and facts."""

    file: ModelFile

    @property
    def identity(self) -> Identity:
        """By what the file is called and what it holds."""
        return Identity(str(self.file), self.file.sha256, self.file.spec.scale, own=True)

    @property
    def licence(self) -> str | None:
        """As its facts tell."""
        return self.file.facts.licence

    @property
    def facts(self) -> str | None:
        """All of them."""
        return self.file.facts.as_json()

    def build(self, device: torch.device) -> Restorer:
        """Read again; a file that has changed is refused."""
        return self.file.load(device)


def find_registered(
    name: str, weights: str | Path | None, scale: int | None
) -> tuple[Registered, Restorer]:
    """A model of the registry, and what it will be: a restorer without memory for its weights.

    Raises:
        L1bsrGeoError: as `Model`.
    """
    entry = find_entry(name)
    unusual = entry.unusual(scale)
    if weights is not None and not entry.takes_weights:
        raise BadOptionError(f"{name} is not trained: it takes no weights, but got {weights}")
    path = sha256 = licence = None
    if entry.takes_weights:
        path = find_weights(name, weights, entry.weights, unusual).absolute()
        sha256 = hash_file(path)
        licence = read_provenance(path, entry.weights).get("licence")
    with torch.device("meta"):  # costs nothing
        made = entry.make_for(path, scale) if path else entry.make(scale)
    return Registered(name, made.spec.scale, path, sha256, licence), made


def take_own(restorer: Restorer) -> Own:
    """A restorer of the caller's, as it is now."""
    return Own(copy.deepcopy(restorer), uuid4().hex, hash_restorer(restorer))
