"""A trained model behind HTTP: uploads, decoding, the model's thread and the page in a browser."""
