"""The tests. This file keeps the name `tests` ours: some wheels install a package of that name."""
