"""The CUDA backend: the operations and plans of the contract on an NVIDIA GPU, through CuPy."""
