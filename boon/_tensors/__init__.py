"""Tensors in the hands of torch: gradients in one pass, tables that are kept, whether values may be read."""
