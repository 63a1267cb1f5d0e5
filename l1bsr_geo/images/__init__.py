"""Pixels with their geometry: what readers give, tiling asks, and outputs are."""
