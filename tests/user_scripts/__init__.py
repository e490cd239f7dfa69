"""Scripts as users write them: they run, and type checkers know what they have."""
