"""Write torch_numbers.json: what PyTorch computes in float64, for tests/test_reference.py.

Run with torch==2.13.0 (CPU) and NumPy installed: python make_torch_numbers.py
Settings carry the names of tests/reference.py, so that the test passes them on as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TORCH_VERSION = "2.13.0"
CHECKPOINTS = (1, 2, 10, 200)
Record = dict[str, Any]


def main() -> None:
    if torch.__version__.split("+")[0] != TORCH_VERSION:
        raise SystemExit(f"expected torch {TORCH_VERSION}, got {torch.__version__}")
    torch.set_default_dtype(torch.float64)
    numbers = {
        "torch": [{"version": TORCH_VERSION}],
        "optimizer_inputs": [optimizer_inputs()],
        "optimizers": optimizers(),
        "clip_by_norm": clip_by_norm(),
        "schedules": schedules(),
        "activations": activations(),
        "losses": losses(),
        "softmax": [softmax()],
        "batch_norm": [batch_norm()],
        "trainings": trainings(),
    }
    sections = []
    for name, records in numbers.items():
        lines = ",\n".join(json.dumps(record) for record in records)
        sections.append(f"{json.dumps(name)}: [\n{lines}\n]")
    text = "{\n" + ",\n".join(sections) + "\n}\n"
    Path(__file__).with_name("torch_numbers.json").write_text(text)


def normal(seed: int, *shape: int) -> np.ndarray:
    """Return normal numbers short enough to be written out exactly."""
    return np.random.default_rng(seed).normal(size=shape).round(4)


# Optimizers ---------------------------------------------------------------------------------


def optimizer_inputs() -> Record:
    sizes = np.array([1e-3, 0.1, 1, 1, 10, 100])
    gradients = (normal(1, max(CHECKPOINTS), 6) * sizes).round(7)
    return {"weight": normal(0, 6).tolist(), "gradients": gradients.tolist()}


def optimizers() -> list[Record]:
    return [
        optimizer("SGD", torch.optim.SGD, learning_rate=0.01),
        optimizer("SGD", torch.optim.SGD, learning_rate=0.5, weight_decay=0.1),
        momentum("Momentum", learning_rate=0.01, momentum=0.9),
        momentum("Momentum", learning_rate=1.0, momentum=0.5, dampening=0.3),
        momentum("Momentum", learning_rate=0.05, momentum=0.9, dampening=0.1, weight_decay=0.02),
        momentum("Nesterov", learning_rate=0.01, momentum=0.9),
        momentum("Nesterov", learning_rate=0.5, momentum=0.7, weight_decay=0.1),
        optimizer("Adagrad", torch.optim.Adagrad),
        optimizer("Adagrad", torch.optim.Adagrad, learning_rate=1.0, lr_decay=0.1),
        optimizer(
            "Adagrad",
            torch.optim.Adagrad,
            learning_rate=0.1,
            weight_decay=0.1,
            initial_accumulator_value=0.5,
            eps=1e-3,
        ),
        optimizer("RMSprop", torch.optim.RMSprop),
        optimizer("RMSprop", torch.optim.RMSprop, learning_rate=1.0, alpha=0.9, eps=1e-3),
        optimizer("RMSprop", torch.optim.RMSprop, learning_rate=0.01, momentum=0.9),
        optimizer("RMSprop", torch.optim.RMSprop, learning_rate=0.01, centered=True),
        optimizer(
            "RMSprop",
            torch.optim.RMSprop,
            learning_rate=0.1,
            momentum=0.5,
            centered=True,
            weight_decay=0.1,
        ),
        optimizer("Adam", torch.optim.Adam),
        optimizer("Adam", torch.optim.Adam, learning_rate=1.0, betas=[0.8, 0.9], eps=1e-3),
        optimizer("Adam", torch.optim.Adam, learning_rate=0.01, weight_decay=0.1),
        optimizer("AdamW", torch.optim.AdamW),
        optimizer("AdamW", torch.optim.AdamW, learning_rate=0.5, weight_decay=0.1),
    ]


def momentum(name: str, **settings: Any) -> Record:
    nesterov = name == "Nesterov"
    return optimizer(name, lambda *a, **k: torch.optim.SGD(*a, nesterov=nesterov, **k), **settings)


def optimizer(name: str, make: Callable[..., torch.optim.Optimizer], **settings: Any) -> Record:
    inputs = optimizer_inputs()
    weight = torch.tensor(inputs["weight"], requires_grad=True)
    updater = make([weight], **torch_settings(settings))
    weights = {}
    for update, gradient in enumerate(inputs["gradients"], start=1):
        weight.grad = torch.tensor(gradient)
        updater.step()
        if update in CHECKPOINTS:
            weights[update] = weight.tolist()
    return {"name": name, "settings": settings, "weights": weights}


def torch_settings(settings: Record) -> Record:
    return {"lr" if key == "learning_rate" else key: value for key, value in settings.items()}


def clip_by_norm() -> list[Record]:
    records = []
    for max_norm in (0.5, 100.0):
        grads = [normal(2, 3, 2), normal(3, 2)]
        parameters = [nn.Parameter(torch.zeros(grad.shape)) for grad in grads]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = torch.tensor(grad)
        nn.utils.clip_grad_norm_(parameters, max_norm)
        clipped = [parameter.grad.tolist() for parameter in parameters]
        inputs = [grad.tolist() for grad in grads]
        records.append({"grads": inputs, "max_norm": max_norm, "clipped": clipped})
    return records


def schedules() -> list[Record]:
    rates = torch.optim.lr_scheduler
    makers: list[tuple[str, Record, Callable[..., Any]]] = [
        ("step_rate", {"step_size": 3}, lambda o: rates.StepLR(o, 3)),
        ("exponential_rate", {"gamma": 0.9}, lambda o: rates.ExponentialLR(o, 0.9)),
        (
            "inverse_time_rate",
            {"decay": 0.25},
            lambda o: rates.LambdaLR(o, lambda t: 1 / (1 + 0.25 * t)),
        ),
        (
            "cosine_rate",
            {"total": 12, "minimum": 0.01},
            lambda o: rates.CosineAnnealingLR(o, 12, 0.01),
        ),
    ]
    records = []
    for name, settings, make in makers:
        updater = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
        scheduler = make(updater)
        values = []
        for _ in range(13):
            values.append(updater.param_groups[0]["lr"])
            updater.step()
            scheduler.step()
        records.append({"name": name, "rate": 0.3, "settings": settings, "values": values})
    return records


# Functions with gradients -------------------------------------------------------------------


def activations() -> list[Record]:
    return [
        activation("identity", lambda x: 1 * x),
        activation("sigmoid", torch.sigmoid),
        activation("tanh", torch.tanh),
        activation("relu", functional.relu),
        activation("leaky_relu", functional.leaky_relu),
        activation("leaky_relu", functional.leaky_relu, negative_slope=0.2),
        prelu(0.25),
        prelu(-0.5),
        activation("elu", functional.elu),
        activation("elu", functional.elu, alpha=0.5),
        activation("selu", functional.selu),
        activation("gelu", functional.gelu),
        activation("gelu_tanh", lambda x: functional.gelu(x, approximate="tanh")),
        activation("silu", functional.silu),
        activation("softplus", functional.softplus),
        activation("softplus", functional.softplus, beta=2.0, threshold=5.0),
    ]


def grid() -> torch.Tensor:
    near = np.linspace(-8, 8, 33).tolist()
    return torch.tensor([*near, -100.0, -30.0, -1e-5, 1e-5, 19.5, 20.5, 100.0], requires_grad=True)


def activation(name: str, function: Callable[..., torch.Tensor], **settings: float) -> Record:
    x = grid()
    values = function(x, **settings)
    (derivative,) = torch.autograd.grad(values.sum(), x)
    return {
        "name": name,
        "settings": settings,
        "x": x.tolist(),
        "values": values.tolist(),
        "derivative": derivative.tolist(),
    }


def prelu(slope: float) -> Record:
    learned = torch.tensor([slope], requires_grad=True)
    record = activation("prelu", lambda x, slope: functional.prelu(x, learned), slope=slope)
    functional.prelu(grid(), learned).sum().backward()
    return record | {"slope_grad": learned.grad.item()}


def losses() -> list[Record]:
    labels = [3, 0, 1, 1, 2]
    probabilities = functional.softmax(torch.tensor(normal(4, 5, 4)), dim=1).numpy().round(4)
    zero_to_one = np.abs(normal(5, 5, 4)).clip(0, 1)
    counts = np.abs(normal(6, 5, 4)).round()
    cross_entropy = functional.cross_entropy
    binary = functional.binary_cross_entropy_with_logits
    records = []
    for sample_weight in (None, [1.0, 0.5, 0.0, 2.0, 0.25]):
        records += [
            loss("cross_entropy", cross_entropy, labels, sample_weight),
            loss("cross_entropy", cross_entropy, labels, sample_weight, label_smoothing=0.1),
            loss("cross_entropy", cross_entropy, probabilities.tolist(), sample_weight),
            loss(
                "cross_entropy",
                cross_entropy,
                probabilities.tolist(),
                sample_weight,
                label_smoothing=0.2,
            ),
            loss("binary_cross_entropy", binary, zero_to_one.tolist(), sample_weight),
            loss(
                "mean_squared_error", functional.mse_loss, normal(6, 5, 4).tolist(), sample_weight
            ),
            loss(
                "mean_absolute_error", functional.l1_loss, normal(6, 5, 4).tolist(), sample_weight
            ),
            loss("huber", functional.huber_loss, normal(6, 5, 4).tolist(), sample_weight),
            loss(
                "huber", functional.huber_loss, normal(6, 5, 4).tolist(), sample_weight, delta=0.3
            ),
            loss("poisson", functional.poisson_nll_loss, counts.tolist(), sample_weight),
        ]
    return records


def loss(
    name: str,
    function: Callable[..., torch.Tensor],
    targets: list[Any],
    sample_weight: list[float] | None,
    **settings: float,
) -> Record:
    outputs = torch.tensor(3 * normal(7, 5, 4), requires_grad=True)
    each = function(outputs, torch.tensor(targets), reduction="none", **settings)
    row_losses = each.reshape(len(each), -1).mean(dim=1)
    weight = torch.ones(len(each)) if sample_weight is None else torch.tensor(sample_weight)
    mean = (weight * row_losses).sum() / weight.sum()
    (grad,) = torch.autograd.grad(mean, outputs)
    return {
        "name": name,
        "settings": settings | {"sample_weight": sample_weight},
        "outputs": outputs.tolist(),
        "targets": targets,
        "loss": mean.item(),
        "grad": grad.tolist(),
    }


def softmax() -> Record:
    logits = torch.tensor(3 * normal(8, 4, 5), requires_grad=True)
    grad_output = normal(9, 4, 5)
    output = functional.softmax(logits, dim=1)
    output.backward(torch.tensor(grad_output))
    return {
        "logits": logits.tolist(),
        "grad_output": grad_output.tolist(),
        "output": output.tolist(),
        "grad_logits": logits.grad.tolist(),
    }


def batch_norm() -> Record:
    layer = nn.BatchNorm1d(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(normal(10, 3)))
        layer.bias.copy_(torch.tensor(normal(11, 3)))
    x = torch.tensor(normal(12, 5, 3) * [1, 10, 0.1] + [0, 5, -1], requires_grad=True)
    grad_output = normal(13, 5, 3)
    output = layer(x)
    output.backward(torch.tensor(grad_output))
    predicted = layer.eval()(x)
    return {
        "x": x.tolist(),
        "gamma": layer.weight.tolist(),
        "beta": layer.bias.tolist(),
        "grad_output": grad_output.tolist(),
        "output": output.tolist(),
        "grad_x": x.grad.tolist(),
        "grad_gamma": layer.weight.grad.tolist(),
        "grad_beta": layer.bias.grad.tolist(),
        "running_mean": layer.running_mean.tolist(),
        "running_variance": layer.running_var.tolist(),
        "predicted": predicted.tolist(),
    }


# Whole trainings ----------------------------------------------------------------------------


def trainings() -> list[Record]:
    return [
        training("tanh", nn.Tanh(), "Adam", learning_rate=0.01, weight_decay=0.0),
        training("relu", nn.ReLU(), "SGD", learning_rate=0.1, weight_decay=0.01),
    ]


def training(name: str, module: nn.Module, optimizer_name: str, **settings: float) -> Record:
    weights = [normal(14, 4, 6), normal(15, 6, 5), normal(16, 5, 3)]
    biases = [normal(17, 6), normal(18, 5), normal(19, 3)]
    x = normal(20, 7, 4)
    labels = [0, 2, 1, 1, 0, 2, 2]
    layers = []
    for weight, bias in zip(weights, biases, strict=True):
        layer = nn.Linear(*weight.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight.T))
            layer.bias.copy_(torch.tensor(bias))
        layers += [layer, module]
    model = nn.Sequential(*layers[:-1])
    groups = [
        {"params": [layer.weight for layer in layers[::2]]},
        {"params": [layer.bias for layer in layers[::2]], "weight_decay": 0.0},
    ]
    updater = getattr(torch.optim, optimizer_name)(groups, **torch_settings(settings))
    losses = []
    for _ in range(20):
        updater.zero_grad()
        loss = functional.cross_entropy(model(torch.tensor(x)), torch.tensor(labels))
        loss.backward()
        updater.step()
        losses.append(loss.item())
    return {
        "activation": name,
        "optimizer": optimizer_name,
        "settings": settings,
        "weights": [weight.tolist() for weight in weights],
        "biases": [bias.tolist() for bias in biases],
        "x": x.tolist(),
        "labels": labels,
        "losses": losses,
        "trained_weights": [layer.weight.T.tolist() for layer in layers[::2]],
        "trained_biases": [layer.bias.tolist() for layer in layers[::2]],
    }


if __name__ == "__main__":
    main()
