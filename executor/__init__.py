"""The engine that runs batches on real hardware; the core's scheduler drives it unchanged."""
