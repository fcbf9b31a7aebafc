"""Everything that touches elements in every step: formulas, their readings, and the backends."""
