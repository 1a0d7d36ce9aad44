"""``python -m hpcfwi`` and the ``hpcfwi`` command."""

import gc
import sys

from hpcfwi.process import ignore_signals, install_handlers, output_error, safe_stdio

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    code = 75
    try:
        try:
            install_handlers()
            safe_stdio()
            # Worker processes import this module anew: what is heavy comes only when the command runs.
            from hpcfwi.cli.main import command

            code = command()
            if output_error():
                print(f"hpcfwi: not all of the output could be written: {output_error()}", file=sys.stderr)
        finally:
            ignore_signals()
    except KeyboardInterrupt:  # one that came before the command could tell of it, or while it ended
        ignore_signals()
    # "python -m" would end by SIGINT if an interrupt once passed through an exec() of text, as in an import of dataclasses,
    # however it was caught; the next such exec() makes Python forget it (unhandled_keyboard_interrupt, pythonrun.c)
    exec("")
    gc.freeze()  # or Python would look through all that Devito has made once more, for half a second
    sys.exit(code)


if __name__ == "__main__":
    main()
