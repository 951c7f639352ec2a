"""Classifiers that pass images on to each other: is such a cascade better than one model?"""
