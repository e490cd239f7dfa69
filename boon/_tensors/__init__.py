"""Tensors in the hands of torch: gradients in one pass, cached tables, and whether values may be read."""
