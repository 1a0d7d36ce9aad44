"""What users write: the run and site configurations, and a message for every mistake in them."""
