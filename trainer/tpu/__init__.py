"""Compiles the training and evaluation steps for TPUs, on a machine without a TPU."""
