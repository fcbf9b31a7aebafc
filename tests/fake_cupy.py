"""Temporary: a fake of CuPy and of its backend, over NumPy."""
from __future__ import annotations
import sys, types
import numpy as np
from dataclasses import replace
from fastnn.kernels import contract
from fastnn.kernels.numpy_backend import NumpyBackend

class ndarray:
    def __init__(self, a): self._a = a
    shape = property(lambda s: s._a.shape); dtype = property(lambda s: s._a.dtype)
    ndim = property(lambda s: s._a.ndim); size = property(lambda s: s._a.size)
    itemsize = property(lambda s: s._a.itemsize); strides = property(lambda s: s._a.strides)
    nbytes = property(lambda s: s._a.nbytes); T = property(lambda s: ndarray(s._a.T))
    flags = property(lambda s: types.SimpleNamespace(c_contiguous=s._a.flags.c_contiguous, f_contiguous=s._a.flags.f_contiguous))
    data = property(lambda s: types.SimpleNamespace(ptr=s._a.ctypes.data))
    __cuda_array_interface__ = property(lambda s: {})
    def __array__(self, *a, **k): raise TypeError("Implicit conversion to a NumPy array is not allowed")
    def __len__(self): return len(self._a)
    def reshape(self, *s): return ndarray(self._a.reshape(*s))
    def copy(self): return ndarray(self._a.copy())
    def get(self): return self._a.copy()
    def set(self, v): self._a[...] = v
    def __getitem__(self, k): return ndarray(self._a[k])
    def __setitem__(self, k, v):
        assert isinstance(v, (ndarray, int, float)), type(v)
        self._a[k] = v._a if isinstance(v, ndarray) else v

def _of(x): return x._a if isinstance(x, ndarray) else x
module = types.ModuleType("cupy")
module.ndarray = ndarray
for n in ("empty", "zeros", "full", "ones"):
    setattr(module, n, lambda *a, _f=getattr(np, n), **k: ndarray(_f(*a, **k)))
module.asarray = lambda x: x if isinstance(x, ndarray) else ndarray(x.on_device) if hasattr(x, "on_device") else ndarray(np.array(x))
module.from_dlpack = lambda x: ndarray(x.on_device)
module.__version__ = "14"
rt = types.SimpleNamespace(getDeviceProperties=lambda i: {"name": b"stand-in"}, memGetInfo=lambda: (10**9, 2*10**9), driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000)
module.cuda = types.SimpleNamespace(Device=lambda: types.SimpleNamespace(id=0, compute_capability="90"), runtime=rt, nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 0)))

def strip(x):
    if isinstance(x, ndarray): return x._a
    if isinstance(x, (list, tuple)) and not hasattr(x, "_fields"): return type(x)(map(strip, x))
    return x

class CupyBackend:
    name = "cupy"; chunk_rows = 65536; module = module
    def __init__(self, cupy, host): assert cupy is module; self._n = NumpyBackend(); self.host = host
    def start(self, plan, binding):
        plan = replace(plan, precision="float32")
        return self._n.start(plan, replace(binding, x=strip(binding.x), out=strip(binding.out)))
    def predictor(self, plan, arrays): return self._n.predictor(plan, arrays)
for n in contract.OPERATIONS:
    if n not in ("start", "predictor"):
        def op(self, *a, _n=n, **k): return getattr(self._n, _n)(*map(strip, a), **{q: strip(v) for q, v in k.items()})
        setattr(CupyBackend, n, op)
