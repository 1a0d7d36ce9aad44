"""``python -m hpcfwi`` and the ``hpcfwi`` command."""

import gc
import sys

from hpcfwi.interrupts import deafen

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        # Worker processes import this module anew: what is heavy comes only when the command runs.
        from hpcfwi.cli import command

        code = command()
    except KeyboardInterrupt:
        code = 75
    deafen()
    gc.freeze()  # or Python would look through all that Devito has made once more, for half a second
    sys.exit(code)


if __name__ == "__main__":
    main()
