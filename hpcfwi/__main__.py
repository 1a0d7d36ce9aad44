"""``python -m hpcfwi`` and the ``hpcfwi`` command."""

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        # Worker processes import this module anew: what is heavy comes only when the command runs.
        from hpcfwi.cli import command

        code = command()
    except KeyboardInterrupt:
        code = 75
    for late in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(late, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    main()
