"""The family of boundary corrections; see ``correction`` for the interface."""
