"""The speed of samplers against tf.data and Keras."""
