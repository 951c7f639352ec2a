"""From the bytes of one file to pixels: one module for each kind of file, and the rules they share.

These modules import nothing else of the project.
"""
