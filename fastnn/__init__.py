"""Dense neural networks trained as fast as the machine allows.

Public names are imported on first use: ``import fastnn`` loads neither NumPy nor Numba.

>>> import fastnn
>>> model = fastnn.Sequential(fastnn.Linear(64, 128), fastnn.ReLU(), fastnn.Linear(128, 10))
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import augment as augment
    from . import data as data
    from . import functional as functional
    from . import init as init
    from . import metrics as metrics
    from . import schedules as schedules
    from . import studies as studies
    from .backend import get_backend as get_backend
    from .backend import get_num_threads as get_num_threads
    from .backend import set_backend as set_backend
    from .backend import set_num_threads as set_num_threads
    from .backend import use_backend as use_backend
    from .early_stopping import EarlyStopping as EarlyStopping
    from .gradient_check import check_gradients as check_gradients
    from .history import EpochInfo as EpochInfo
    from .history import History as History
    from .kernels.contract import Backend as Backend
    from .layers import ELU as ELU
    from .layers import GELU as GELU
    from .layers import SELU as SELU
    from .layers import Activation as Activation
    from .layers import BatchNorm1d as BatchNorm1d
    from .layers import Dropout as Dropout
    from .layers import Flatten as Flatten
    from .layers import Identity as Identity
    from .layers import Layer as Layer
    from .layers import LeakyReLU as LeakyReLU
    from .layers import Linear as Linear
    from .layers import PReLU as PReLU
    from .layers import ReLU as ReLU
    from .layers import Sigmoid as Sigmoid
    from .layers import SiLU as SiLU
    from .layers import Softmax as Softmax
    from .layers import Softplus as Softplus
    from .layers import Standardize as Standardize
    from .layers import Tanh as Tanh
    from .lifts.arrays import from_numpy as from_numpy
    from .lifts.pytorch import from_torch as from_torch
    from .lifts.scikit_learn import from_sklearn as from_sklearn
    from .loading import load as load
    from .losses import BCEWithLogitsLoss as BCEWithLogitsLoss
    from .losses import CrossEntropyLoss as CrossEntropyLoss
    from .losses import HuberLoss as HuberLoss
    from .losses import L1Loss as L1Loss
    from .losses import Loss as Loss
    from .losses import MSELoss as MSELoss
    from .losses import PoissonNLLLoss as PoissonNLLLoss
    from .many import fit_many as fit_many
    from .model import Sequential as Sequential
    from .optim import SGD as SGD
    from .optim import Adagrad as Adagrad
    from .optim import Adam as Adam
    from .optim import AdamW as AdamW
    from .optim import Momentum as Momentum
    from .optim import Nesterov as Nesterov
    from .optim import Optimizer as Optimizer
    from .optim import RMSprop as RMSprop
    from .steps import DivergedError as DivergedError
    from .steps import EagerWarning as EagerWarning

__version__ = "0.1.0"

_MODULES = ("augment", "data", "functional", "init", "metrics", "schedules", "studies")
_NAMES = {
    "backend": "get_backend get_num_threads set_backend set_num_threads use_backend",
    "early_stopping": "EarlyStopping",
    "gradient_check": "check_gradients",
    "history": "EpochInfo History",
    "kernels.contract": "Backend",
    "layers": "Activation BatchNorm1d Dropout ELU Flatten GELU Identity LeakyReLU Linear PReLU ReLU"
    " SELU SiLU Sigmoid Softmax Softplus Standardize Tanh Layer",
    "lifts.arrays": "from_numpy",
    "lifts.pytorch": "from_torch",
    "lifts.scikit_learn": "from_sklearn",
    "losses": "BCEWithLogitsLoss CrossEntropyLoss HuberLoss L1Loss Loss MSELoss PoissonNLLLoss",
    "loading": "load",
    "many": "fit_many",
    "model": "Sequential",
    "optim": "SGD Adagrad Adam AdamW Momentum Nesterov Optimizer RMSprop",
    "steps": "DivergedError EagerWarning",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*_MODULES, *_HOME]

_FOLDER = Path(__file__).parent
if not (_FOLDER / "kernels").is_dir():
    # A checkout keeps kernels/ beside fastnn/; an installed wheel has it inside.
    __path__.append(str(_FOLDER.parent))


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'fastnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
