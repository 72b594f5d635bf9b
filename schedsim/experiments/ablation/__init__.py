"""Paging or scheduling: every combination, and what each part brings: `schedsim ablate`."""
