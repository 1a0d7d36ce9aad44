"""Scaling studies: run a problem on several numbers of nodes, see where the time goes, and predict runs on more nodes."""
