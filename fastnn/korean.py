"""The words of figures in Korean, by what they are in English."""

from __future__ import annotations

KOREAN = {
    # Everywhere
    "epoch": "에포크",
    "loss": "손실",
    "accuracy": "정확도",
    "training": "학습",
    "validation": "검증",
    "learning rate": "학습률",
    "best epoch: {epoch}": "가장 좋은 에포크: {epoch}",
}
