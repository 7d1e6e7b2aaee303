"""Lambda entry points, one file per function; ``bootstrap`` is the composition root."""
