"""Whole networks of other libraries as networks of fastnn, and back."""
