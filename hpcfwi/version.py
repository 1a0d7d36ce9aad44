"""The version of hpcfwi, defined only here."""

__version__ = "0.1.0"
