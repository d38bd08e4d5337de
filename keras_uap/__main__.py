"""The command line: `python -m keras_uap`, or `keras-uap` once installed.

The commands themselves are in `keras_uap.cli`, one file each. Their
arguments are read and checked before TensorFlow is loaded.
"""

import argparse
import contextlib
import importlib
import json
import os
import sys
import warnings

from keras_uap.cli import console, options
from keras_uap.cli.arguments import COMMANDS
from keras_uap.version import __version__

DESCRIPTION = """\
Find and measure universal adversarial perturbations of image classifiers: one
small image that, added to almost any picture, changes the classifier's answer.
For testing and hardening your own models."""


class _Parser(argparse.ArgumentParser):
    """Mistakes in the arguments are told in one line, as all others are."""

    def error(self, message):
        raise console.UsageError(f"{message}. See {self.prog} --help.")


def main(arguments=None):
    """Runs the command line; returns the exit status."""
    shown = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        given = _parser().parse_args(arguments)
        # Whoever asks for JSON gets nothing else on stdout.
        place = sys.stderr if given.json else sys.stdout
        with contextlib.redirect_stdout(place):
            options.check(given)
            console.load_tensorflow()
            command = importlib.import_module(f"keras_uap.cli.{given.command}")
            table, values = command.run(given)
        print(json.dumps(values, indent=2) if given.json else f"\n{table}")
        sys.stdout.flush()
        return 0
    except (
        console.UsageError,
        ValueError,
        TypeError,
        OSError,
        ImportError,
    ) as error:
        _tell(f"keras-uap: error: {' '.join(str(error).split())}")
        return 2
    except console.Interrupted as error:
        _tell(f"\nkeras-uap: {error}")
        return 130
    except KeyboardInterrupt:
        _tell("\nkeras-uap: interrupted, nothing written.")
        return 130
    finally:
        warnings.showwarning = shown


def _tell(text):
    """Says why there is no result."""
    print(text, file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        # A full disk or a closed pipe: Python would say so once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser():
    parser = _Parser(prog="keras-uap", description=DESCRIPTION)
    parser.add_argument(
        "--version", action="version", version=f"keras-uap {__version__}"
    )
    parsers = parser.add_subparsers(
        required=True, dest="command", metavar="command"
    )
    for name, command in COMMANDS.items():
        made = parsers.add_parser(
            name,
            help=command.help,
            description=command.help,
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add(made)
        made.add_argument(
            "--json",
            action="store_true",
            help="print JSON to stdout instead of a table, the rest to stderr",
        )
    return parser


def _show_warning(message, category, *_, **__):
    # Deprecations are for developers of the libraries below.
    if issubclass(category, UserWarning):
        print(f"keras-uap: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
