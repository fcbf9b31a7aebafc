"""Other code's names and conventions over fastnn's kernels."""
