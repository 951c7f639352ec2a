"""Recipes: the settings of published trainings, compared with each other and with their sources."""
