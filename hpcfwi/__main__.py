"""``python -m hpcfwi`` and the ``hpcfwi`` command."""

import gc
import sys

from hpcfwi.interrupts import deafen, listen

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    code = 75
    try:
        try:
            listen()
            # names of files, and what is in them, may be letters that the terminal has not
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
            # Worker processes import this module anew: what is heavy comes only when the command runs.
            from hpcfwi.cli import command

            code = command()
        finally:
            deafen()
    except KeyboardInterrupt:  # one that came before the command could tell of it, or while it ended
        deafen()
    # "python -m" would end by SIGINT if an interrupt once passed through an exec() of text, as in an import of dataclasses,
    # however it was caught; the next such exec() makes Python forget it (unhandled_keyboard_interrupt, pythonrun.c)
    exec("")
    gc.freeze()  # or Python would look through all that Devito has made once more, for half a second
    sys.exit(code)


if __name__ == "__main__":
    main()
