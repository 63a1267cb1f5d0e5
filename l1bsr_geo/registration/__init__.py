"""Alignment: bands of a detector to its reference band."""
