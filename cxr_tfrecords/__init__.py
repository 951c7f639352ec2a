"""What a radiograph record is, what a dataset directory is, and how images are split.

The ground floor of the project: it imports neither Apache Beam nor Keras.
"""

__version__ = "0.1.0"
