"""Workers, however they are obtained: local processes, jobs of a batch system, or the nodes of an allocation."""
