"""The commands of `keras-uap`, or `python -m keras_uap`, one file each.

What a command takes stands in `arguments.py`, which needs no TensorFlow. Its
own file has `run(options)`, which tells of its progress and returns a table, a
text of at most 80 columns, and the same as a dictionary for `--json`.
"""
