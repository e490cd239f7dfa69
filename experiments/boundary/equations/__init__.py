"""Equations, conditions, random inputs and reference solutions of the problems of Saad et al., and others like them."""
