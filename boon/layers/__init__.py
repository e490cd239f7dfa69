"""Parts of the layers of an operator: pointwise maps, skip connections, norms, factorised kernels."""
