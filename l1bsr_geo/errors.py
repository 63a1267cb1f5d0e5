"""One base error and its kinds; one base warning.

A message names the thing, what was found, what was expected and what to do. The command line
prints it as one line and exits with 2; any other exception is a bug.
"""

__all__ = [
    "BadInputError",
    "BadOptionError",
    "ClusterError",
    "DownloadError",
    "GeometryWarning",
    "L1bsrGeoError",
    "L1bsrGeoWarning",
    "MissingInputError",
    "NotEnoughMemoryError",
    "OutputExistsError",
    "WeightsError",
]


class L1bsrGeoError(Exception):
    """Base of every error that a user can cause and mend."""


class MissingInputError(L1bsrGeoError, FileNotFoundError):
    """A file, band, granule or detector that should be there is not."""


class BadInputError(L1bsrGeoError, ValueError):
    """An input is there but cannot be used: truncated, of another level, inconsistent."""


class BadOptionError(L1bsrGeoError, ValueError):
    """An option has an impossible value, or two options exclude each other."""


class NotEnoughMemoryError(L1bsrGeoError, MemoryError):
    """Not even a small part of the work fits into memory."""


class OutputExistsError(L1bsrGeoError, FileExistsError):
    """The output is there already and overwriting was not asked for."""


class WeightsError(L1bsrGeoError, ValueError):
    """A weights file does not fit its network, or is not what its hash says."""


class DownloadError(L1bsrGeoError, ConnectionError):
    """Something cannot be fetched, or what came is not what was expected."""


class ClusterError(L1bsrGeoError, RuntimeError):
    """The cluster cannot be used, or went away in the middle of the work."""


class L1bsrGeoWarning(UserWarning):
    """Base of the project's warnings."""


class GeometryWarning(L1bsrGeoWarning):
    """The georeferencing is weaker than the product allows; the message says by how much."""
