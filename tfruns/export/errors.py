"""The error of an export."""

from tfruns.errors import TfRunsError


class ExportError(TfRunsError):
    """The export can't be made, or can't go on; the file that was there before is unchanged."""
