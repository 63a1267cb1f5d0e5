"""Sensor geometry to a map raster on disk."""
