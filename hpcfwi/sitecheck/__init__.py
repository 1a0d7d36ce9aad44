"""The checks of ``hpcfwi site check``: whether a site works as its file describes."""
