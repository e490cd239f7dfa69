"""How results are shown: figures, terminal, documents and the report page."""
