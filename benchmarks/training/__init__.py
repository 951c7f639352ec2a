"""The training loop against a plain step, Keras and PyTorch."""
