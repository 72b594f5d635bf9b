"""Triton kernels; imports torch and triton alone."""
