"""Running networks on videos, and adapting them to what they restore."""
