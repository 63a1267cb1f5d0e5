"""Differentiable image operators (torch only, stateless)."""
