"""The commands, one file each, with `run(options)`.

It prints its progress and returns a table and what `--json` prints. The options
are in `parser.py`, which needs no TensorFlow; `loading.py` loads what they
name.
"""
