"""The version of tfruns: its one home."""

__version__ = "0.3.0"
