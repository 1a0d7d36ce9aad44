"""What people look at: progress, status, figures and the report of a run."""
