"""The command ``hpcfwi``: parse the arguments, call the function that does the work, print, return the exit code."""
