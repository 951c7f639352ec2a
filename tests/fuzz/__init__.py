"""Damaged files by the thousand, made from small valid ones: `python -m tests.fuzz`, `make fuzz`.

The mutators are of this project and not of atheris: atheris follows the coverage of Python code,
and the faults to be found here are in decoders that come compiled, without its instrumentation.
"""
