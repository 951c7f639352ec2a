"""Radiographs to TFRecord shards, on any Apache Beam runner."""
