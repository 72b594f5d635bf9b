"""`validate`: measured runs against their simulation, and where the difference comes from."""
