"""Methods against each other: the grid of runs, their statistics, their words."""
