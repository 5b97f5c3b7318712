"""hdr gives pictures their light back."""

__version__ = "0.1.0"
