"""One walk over a list that changes, and many of them side by side."""
