"""Grids of runs with intervals: the questions of the recipe, asked several times."""
