"""Triton kernels and, beside each, its plain torch reference; imports torch and triton alone."""
