"""Super-resolution of satellite images in sensor geometry."""

__version__ = "0.1.0"
