"""Boundary data of all sides on rows, and the events in them that steps must not miss."""
