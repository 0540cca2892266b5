"""The configuration of a study: every key, its meaning, its default and its limits."""
