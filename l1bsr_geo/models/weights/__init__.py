"""Trained weights that come with the package: safetensors, with model cards and recipes."""
