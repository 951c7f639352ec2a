"""The settings of a training run: their flags, their checks, their words in messages."""
