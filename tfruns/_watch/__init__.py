"""What happens to the runs of jobs: polls, snapshots, changes, resume tokens, waits."""
