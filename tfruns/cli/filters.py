"""The options that select runs: by status, name, trigger, version and time of creation; and the order of runs."""

from tfruns.cli.help import options, options_of, which_runs
from tfruns.cli.values import Word, moment

# Repeated here, because importing the models would make `--help` slow; a test compares them with the enums.
STATUSES = (
    *("CREATED", "SCHEDULED", "RUNNING", "FINISHED", "FAILED"),
    *("TERMINATION_REQUESTED", "TERMINATING", "TERMINATED", "UNKNOWN"),
)
SORT_KEYS = ("startTime", "duration", "deploymentVersion", "triggeredBy", "status")
DIRECTIONS = ("asc", "desc")

_order = options_of("Order")

filter_options = options(
    which_runs("--search-prefix", metavar="TEXT", help="Only runs whose name or id begins with TEXT."),
    which_runs(
        "--status",
        type=Word(STATUSES, "JobRunStatus"),
        metavar="STATUS",
        multiple=True,
        help=f"Only runs with this status, in any case: {', '.join(STATUSES)}. May be given several times.",
    ),
    which_runs(
        "--triggered-by",
        metavar="SLUG",
        multiple=True,
        help="Only runs started by this subject: an e-mail address or an account's name. May be given several times.",
    ),
    which_runs(
        "--version-number",
        "version_numbers",
        type=float,
        metavar="NUMBER",
        multiple=True,
        help="Only runs of this version of the deployment. May be given several times.",
    ),
)

order_options = options(
    _order(
        "--sort-by",
        type=Word(SORT_KEYS, "JobRunsSortBy"),
        metavar="KEY",
        help=f"What to sort by: {', '.join(SORT_KEYS)}. Else the server's order: newest first.",
    ),
    _order("--order", type=Word(DIRECTIONS, "SortDirection"), help="Ascending or descending."),
)

window_options = options(
    which_runs(
        "--since",
        "created_after",
        type=moment,
        metavar="TIME",
        help="Runs created since then: 30m, 1h30m, 7d or 1w ago, yesterday or today from 0:00, or 2026-11-23T08:30 in"
        " local time, or with Z in UTC.",
    ),
    which_runs(
        "--until",
        "created_before",
        type=moment,
        metavar="TIME",
        help="Only runs created before that time, given in the same way.",
    ),
)
