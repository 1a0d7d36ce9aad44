"""The checks of ``hpcfwi site check``: whether a site is as its file says."""
