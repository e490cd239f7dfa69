"""Tensors in the hands of torch: cached tables, and fields of real numbers."""
