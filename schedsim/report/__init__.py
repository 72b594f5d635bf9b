"""Reports: one HTML file that needs no network, and its figures for a paper."""
