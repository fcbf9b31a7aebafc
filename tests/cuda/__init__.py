"""CUDA without a GPU: kernels under g++, NVRTC's report on them, a stand-in for CuPy."""
