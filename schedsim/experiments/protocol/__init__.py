"""A protocol of validation: cells fixed as data, measured piece by piece, evaluated when done."""
