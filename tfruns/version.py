"""The version of tfruns: its one home."""

__version__ = "0.1.0"
