"""Servers that are run by path, each in an environment of its own that knows nothing of this project."""
