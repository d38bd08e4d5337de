"""The command line: `python -m keras_uap`, or `keras-uap` once installed.

The commands themselves are in `keras_uap.cli`, one file each. Their
arguments are read and checked before TensorFlow is loaded.
"""

import contextlib
import importlib
import json
import sys
import warnings

from keras_uap.cli import console, parser


def main(arguments=None):
    """Runs the command line; returns the exit status."""
    shown = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        options = parser.parse(arguments)
        # With --json, stdout holds nothing but JSON.
        place = sys.stderr if options.json else sys.stdout
        with contextlib.redirect_stdout(place):
            console.load_tensorflow()
            name = f"keras_uap.cli.{options.command}"
            result = importlib.import_module(name).run(options)
        _show(result, options.json)
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        message = " ".join(str(error).split())
        print(f"keras-uap: error: {message}", file=sys.stderr)
        return 2
    except console.GateFailed as error:
        text, result = error.args
        _show(result, options.json)
        print(f"keras-uap: {text}", file=sys.stderr)
        return 3
    except (console.Interrupted, KeyboardInterrupt) as error:
        text = str(error) or "interrupted."
        print(f"\nkeras-uap: {text}", file=sys.stderr)
        return 130
    finally:
        warnings.showwarning = shown


def _show(result, as_json):
    table, values = result
    text = json.dumps(values, indent=2) if as_json else f"\n{table}"
    print(text, flush=True)


def _show_warning(message, category, *_, **__):
    # Deprecations are for developers of the libraries below.
    if issubclass(category, UserWarning):
        print(f"keras-uap: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
