"""The columns of a run, for every table that is made of runs."""
