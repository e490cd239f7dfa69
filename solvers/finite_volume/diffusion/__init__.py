"""The diffusion term on rows: means on faces, rates, implicit stages and stabilised explicit steps."""
