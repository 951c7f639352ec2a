"""Predicts images on Apache Beam: what trainer.predict does, on any runner."""
