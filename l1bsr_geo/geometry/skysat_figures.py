"""Figures of SkySat's frames that simulation and networks share."""

FULL_SCALE = 3400.0
"""[DN] where a pixel is full; DN per unit of the SkySat networks."""
