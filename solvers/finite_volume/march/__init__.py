"""Time steps of balance laws: step control, implicit and explicit schemes, and their driver."""
