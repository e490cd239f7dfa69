"""Time steppers and the loop that drives them."""
