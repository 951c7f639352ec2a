"""The steps through the TPU compiler, on a machine without a TPU."""
