"""The networks: backbones, the classifier on top of them, BatchNormalization, heat maps."""
