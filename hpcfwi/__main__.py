"""``python -m hpcfwi`` and the ``hpcfwi`` command."""

import gc
import sys

from hpcfwi.interrupts import deafen, listen
from hpcfwi.output import lost, secure

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    code = 75
    try:
        try:
            listen()
            secure()
            # Worker processes import this module anew: what is heavy comes only when the command runs.
            from hpcfwi.cli import command

            code = command()
            if lost():
                print(f"hpcfwi: not all of the output could be written: {lost()}", file=sys.stderr)
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
