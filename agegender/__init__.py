"""Telling age and gender from a picture of a face: the package behind the notebooks."""

__version__ = "0.1.0"
