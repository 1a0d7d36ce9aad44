"""``python -m hpcfwi`` and the ``hpcfwi`` command."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    # Worker processes import this module anew: what is heavy comes only when the command runs.
    from hpcfwi.cli import command

    sys.exit(command())


if __name__ == "__main__":
    main()
