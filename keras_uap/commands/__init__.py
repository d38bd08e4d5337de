"""The commands of `python -m keras_uap`, one file each.

Each file has `HELP` (one sentence), `EXAMPLE`, `add_arguments(parser)` and
`run(options)`. `run` tells of its progress by `print` and returns a table, a
text of at most 80 columns, and the same as a dictionary for `--json`.
"""
