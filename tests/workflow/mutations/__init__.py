"""Staleness by mutation: after one edit of a finished study, what would run against what should."""
