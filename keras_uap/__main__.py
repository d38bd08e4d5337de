"""The command line: `python -m keras_uap`, or `keras-uap` once installed.

The commands themselves are in `keras_uap.commands`, one file each.
"""

import argparse
import contextlib
import json
import sys
import warnings

from keras_uap.commands import (
    audit,
    console,
    demo,
    evaluate,
    fit,
    harden,
    report,
    transfer,
)

DESCRIPTION = """\
Find and measure universal adversarial perturbations of image classifiers: one
small image that, added to almost any picture, changes the classifier's answer.
For testing and hardening your own models."""

COMMANDS = (demo, audit, fit, evaluate, transfer, harden, report)


class _Parser(argparse.ArgumentParser):
    """Mistakes in the arguments are told in one line, as all others are."""

    def error(self, message):
        raise console.UsageError(f"{message}. See {self.prog} --help.")


def main(arguments=None):
    """Runs the command line; returns the exit status."""
    shown = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        options = _parser().parse_args(arguments)
        # Whoever asks for JSON gets nothing else on stdout.
        place = sys.stderr if options.json else sys.stdout
        with contextlib.redirect_stdout(place):
            table, values = options.run(options)
        print(json.dumps(values, indent=2) if options.json else f"\n{table}")
        return 0
    except (
        console.UsageError,
        ValueError,
        TypeError,
        OSError,
        ImportError,
    ) as error:
        text = " ".join(str(error).split())
        print(f"keras-uap: error: {text}", file=sys.stderr)
        return 2
    except console.Interrupted as error:
        print(f"\nkeras-uap: {error}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\nkeras-uap: interrupted, nothing written.", file=sys.stderr)
        return 130
    finally:
        warnings.showwarning = shown


def _parser():
    parser = _Parser(prog="keras-uap", description=DESCRIPTION)
    parsers = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        made = parsers.add_parser(
            command.__name__.rpartition(".")[2],
            help=command.HELP,
            description=command.HELP,
            epilog=f"example:\n  {command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(made)
        made.add_argument(
            "--json",
            action="store_true",
            help="print JSON to stdout instead of a table, the rest to stderr",
        )
        made.set_defaults(run=command.run)
    return parser


def _show_warning(message, category, *_, **__):
    # Deprecations are for developers of the libraries below.
    if issubclass(category, UserWarning):
        print(f"keras-uap: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
