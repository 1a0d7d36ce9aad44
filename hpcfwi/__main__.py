"""``python -m hpcfwi`` and the ``hpcfwi`` command."""

import gc
import sys

from hpcfwi.process import ignore_signals, install_handlers, mark_command_start, output_error, safe_stdio


def main() -> None:
    """Run the command line and exit with its code."""
    mark_command_start()
    code = 75
    try:
        try:
            install_handlers()
            safe_stdio()
            # worker processes import this module again: heavy imports belong to the command
            from hpcfwi.cli.main import command

            code = command()
            if output_error():
                print(f"hpcfwi: some output could not be written: {output_error()}", file=sys.stderr)
        finally:
            ignore_signals()
    except KeyboardInterrupt:  # before the command can handle it, or while it ends
        ignore_signals()
    # "python -m" ends by SIGINT if an interrupt left an exec() of text (dataclasses call it), even if the interrupt was caught
    # later; another exec() resets the flag (unhandled_keyboard_interrupt in pythonrun.c)
    exec("")
    gc.freeze()  # otherwise a last collection at exit over all of Devito's objects takes half a second
    sys.exit(code)


if __name__ == "__main__":
    main()
