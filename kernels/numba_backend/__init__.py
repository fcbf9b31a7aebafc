"""The compiled backend: kernels as LLVM vectors, control in Numba, threads of our own."""
