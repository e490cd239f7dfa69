"""Cost of the library against what a user would pick instead, each in one run on one machine."""
